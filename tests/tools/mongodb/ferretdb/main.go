// Command ferretdb serves MongoDB's wire protocol over PostgreSQL with DocumentDB, for tests.
package main

import (
	"context"
	"flag"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/FerretDB/FerretDB/v2/ferretdb"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:27017", "TCP address")
	postgresql := flag.String("postgresql", "", "PostgreSQL URL")
	state := flag.String("state", ".", "folder for its state")
	flag.Parse()

	telemetry := false
	server, err := ferretdb.New(&ferretdb.Config{
		PostgreSQLURL: *postgresql,
		ListenAddr:    *listen,
		StateDir:      *state,
		LogLevel:      slog.LevelWarn,
		LogOutput:     os.Stderr,
		Telemetry:     &telemetry,
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server.Run(ctx)
}
