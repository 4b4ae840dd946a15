// Package sqlite keeps routes in a SQLite file and tells when they change. It
// is the only importer of the driver.
//
//	Open(path) (*DB, error)        creates the file when there is none
//	db.Put, db.Delete, db.Apply    one durable transaction each; Apply says its place in the change log
//	db.Get, db.List                rows
//	db.Prune                       shortens the change log, a bounded step at a time
//	OpenFeed(path, options)        watches the file
//	feed.Run(ctx, sink)            Reset with all rows, then Change after change, until ctx ends
//	feed.Wake(), feed.Seq()        look at once; all changes up to here were given to the sink
//	Version(ctx)                   of SQLite itself
//
// # What is in the file
//
//	functions(k TEXT PRIMARY KEY, v TEXT NOT NULL, updated INTEGER)   the rows; index on updated
//	baton_changes(seq INTEGER PRIMARY KEY AUTOINCREMENT, k TEXT, op TEXT)   the change log
//
// Triggers append to the log, so any INSERT, UPDATE or DELETE by any process
// counts, whether it touches updated or not. The log says which keys may have
// changed; what they are now is read from functions, in the same transaction.
// So an entry too many is harmless, and the triggers log rather too much than
// too little: INSERT OR REPLACE and UPDATE OR REPLACE delete the rows in their
// way without any delete trigger (unless recursive_triggers is on). The row
// with the same key is logged anyway, by the insert; one that is in the way
// with its rowid is logged by a BEFORE trigger.
//
// # Goroutines and locks
//
// Feed.Run works on its caller's goroutine and starts none. It owns one
// connection, which nobody else uses: PRAGMA data_version tells only of other
// connections' commits. A DB owns one connection, too, used by one caller at a
// time. No lock is held by a Feed between two looks, and no transaction of any
// kind by either between two calls.
package sqlite
