package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
)

// The data model. functions is the predecessor's and stays as it is; tables hold
// what was deployed and are made when they are missing; the rest is re-created
// when it is missing or different.
const createFunctions = "CREATE TABLE functions(k TEXT PRIMARY KEY, v TEXT NOT NULL, updated INTEGER)"

var schema = []struct{ kind, name, sql string }{
	{"table", "baton_changes", "CREATE TABLE baton_changes(seq INTEGER PRIMARY KEY AUTOINCREMENT, k TEXT, op TEXT)"},
	{"index", "functions_updated", "CREATE INDEX functions_updated ON functions(updated)"},
	{"trigger", "baton_inserted", `CREATE TRIGGER baton_inserted AFTER INSERT ON functions BEGIN
	INSERT INTO baton_changes(k, op) VALUES (NEW.k, 'put');
END`},
	{"trigger", "baton_updated", `CREATE TRIGGER baton_updated AFTER UPDATE ON functions BEGIN
	INSERT INTO baton_changes(k, op) SELECT OLD.k, 'delete' WHERE OLD.k IS NOT NEW.k;
	INSERT INTO baton_changes(k, op) VALUES (NEW.k, 'put');
END`},
	{"trigger", "baton_deleted", `CREATE TRIGGER baton_deleted AFTER DELETE ON functions BEGIN
	INSERT INTO baton_changes(k, op) VALUES (OLD.k, 'delete');
END`},
	// A REPLACE deletes the row whose rowid it takes, and no delete trigger is
	// told. NEW.rowid means something here only when the statement gave one;
	// otherwise a key too many is logged at worst.
	{"trigger", "baton_inserting", `CREATE TRIGGER baton_inserting BEFORE INSERT ON functions BEGIN
	INSERT INTO baton_changes(k, op) SELECT k, 'delete' FROM functions WHERE rowid = NEW.rowid AND k IS NOT NEW.k;
END`},
	{"trigger", "baton_updating", `CREATE TRIGGER baton_updating BEFORE UPDATE ON functions WHEN NEW.rowid <> OLD.rowid BEGIN
	INSERT INTO baton_changes(k, op) SELECT k, 'delete' FROM functions WHERE rowid = NEW.rowid;
END`},
}

// ensureSchema creates what is missing, in one transaction, and takes no write
// lock when nothing is.
func (h *handle) ensureSchema(ctx context.Context) error {
	missing, err := h.missing(ctx)
	if err != nil || len(missing) == 0 {
		return classify(err)
	}
	return h.transact(ctx, "BEGIN IMMEDIATE", func() error {
		// Again, under the lock: another process may have been faster.
		missing, err := h.missing(ctx)
		if err != nil {
			return err
		}
		for _, statement := range missing {
			if _, err := h.conn.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("create the schema: %w", err)
			}
		}
		return nil
	})
}

// missing is what has to be executed, in order.
func (h *handle) missing(ctx context.Context) (statements []string, err error) {
	have := make(map[string]string)
	err = h.query(ctx, func(rows *sql.Rows) error {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return err
		}
		have[name] = text
		return nil
	}, "SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema")
	if err != nil {
		return nil, err
	}
	if _, ok := have["table functions"]; !ok {
		statements = append(statements, createFunctions)
	} else if err := h.checkFunctions(ctx); err != nil {
		return nil, err
	}
	for _, t := range tables {
		if _, ok := have["table "+t.name]; !ok {
			statements = append(statements, t.sql)
		}
	}
	for _, part := range schema {
		text, ok := have[part.kind+" "+part.name]
		if ok && text == part.sql {
			continue
		}
		if ok {
			statements = append(statements, "DROP "+part.kind+" "+part.name)
		}
		statements = append(statements, part.sql)
	}
	return statements, nil
}

// checkFunctions: a table of that name that is not ours is nothing to repair.
func (h *handle) checkFunctions(ctx context.Context) error {
	var columns []string
	err := h.query(ctx, func(rows *sql.Rows) error {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		columns = append(columns, name)
		return nil
	}, "SELECT name FROM pragma_table_info('functions')")
	if err != nil {
		return err
	}
	for _, want := range []string{"k", "v", "updated"} {
		if !slices.Contains(columns, want) {
			return fmt.Errorf("table functions has no column %q", want)
		}
	}
	return nil
}

// query calls each for every row. The rows are closed when it returns.
func (h *handle) query(ctx context.Context, each func(*sql.Rows) error, statement string, args ...any) error {
	rows, err := h.conn.QueryContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
