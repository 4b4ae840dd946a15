// A Rust function that keeps secrets: "scan" looks for one of an earlier request
// in the memory, everything else plants some and ends in that way.
use std::collections::HashMap;
use std::io::{Read, Write};

static mut KEPT: [u8; 70_000] = [0; 70_000];
static mut COUNT: u64 = 0;
static mut LIST: Option<HashMap<usize, Vec<u8>>> = None;

const LENGTH: usize = 48;

fn mark(i: usize) -> u8 {
    0x80 | ((i * 37 + 11) & 0x7f) as u8
}

fn secret(n: usize) -> Vec<u8> {
    (0..n).map(|i| mark(i % LENGTH)).collect()
}

#[inline(never)]
fn search(from: usize, to: usize) -> usize {
    let mut p = from;
    while p + LENGTH <= to {
        let mut i = 0;
        while i < LENGTH && unsafe { std::ptr::read_volatile((p + i) as *const u8) } == mark(i) {
            i += 1;
        }
        if i == LENGTH {
            return p;
        }
        p += 1;
    }
    0
}

#[inline(never)]
fn deep(n: usize) -> usize {
    let frame = secret(256);
    let mut copy = [0u8; 256];
    copy.copy_from_slice(&frame);
    if n == 0 {
        return copy[3] as usize;
    }
    deep(n - 1) + copy[n % 256] as usize
}

fn main() {
    let mut body = String::new();
    std::io::stdin().read_to_string(&mut body).unwrap();
    let out = |text: &str| {
        let mut stdout = std::io::stdout();
        stdout.write_all(text.as_bytes()).unwrap();
        stdout.flush().unwrap();
    };
    unsafe {
        if body == "scan" {
            let top = core::arch::wasm32::memory_size(0) << 16;
            let at = search(1024, top);
            if at != 0 || KEPT[0] != 0 || COUNT != 0 || LIST.is_some() {
                out(&format!("FOUND at {} of {}, count {}", at, top, COUNT));
                return;
            }
            out("clean");
            return;
        }
        let kept = secret(70_000);
        for (i, b) in kept.iter().enumerate() {
            KEPT[i] = *b;
        }
        COUNT += 1;
        LIST = Some((0..100).map(|i| (i, secret(2000 + i))).collect());
        std::mem::forget(secret(1 << 20));
        if deep(100) == 1 {
            out("never");
        }
        out("planted");
        match body.as_str() {
            "exit" => std::process::exit(3),
            "panic" => panic!("on demand"),
            "spin" => loop {
                let n = std::ptr::read_volatile(&raw_count());
                std::ptr::write_volatile(&mut COUNT, n + 1);
            },
            _ => {}
        }
    }
}

fn raw_count() -> u64 {
    unsafe { COUNT }
}
