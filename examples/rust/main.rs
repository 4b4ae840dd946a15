//! Reverses each line of the request's body.
use std::io::{self, BufRead, Write};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(b"Content-Type: text/plain; charset=utf-8\n\n")?;
    for line in io::stdin().lock().lines() {
        let reversed: String = line?.chars().rev().collect();
        writeln!(out, "{reversed}")?;
    }
    Ok(())
}
