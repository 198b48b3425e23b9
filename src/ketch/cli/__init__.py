"""The command line: flags in, engine calls, words and exit statuses out."""
