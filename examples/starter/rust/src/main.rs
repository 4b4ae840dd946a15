//! {{name}} is a function: the request's body is its standard input, and what it
//! prints is the response. What it writes to standard error is in its log:
//! baton logs {{name}}
use std::io::Read;

fn main() -> std::io::Result<()> {
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?; // an error is answered with 502
    let method = std::env::var("REQUEST_METHOD").unwrap_or_default();
    // Output that starts with { or [ is sent as JSON. A header block in front of
    // it, as in CGI, sets the status and fields.
    println!("{{\"message\":\"Hello from Rust\",\"method\":\"{}\",\"bytes\":{}}}", method, body.len());
    Ok(())
}
