module gofresh

go 1.26
