module modelmuxer-tests/pause

go 1.24.0
