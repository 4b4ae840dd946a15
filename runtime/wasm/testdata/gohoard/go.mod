module gohoard

go 1.26
