"""The ledger in MongoDB: `store.MongoStore`, in parts by what is kept."""
