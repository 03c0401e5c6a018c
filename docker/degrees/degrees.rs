//! The JSON API of a university's degrees by year, on port 5000: `/degrees`, `/degrees?year=2019`.
//!
//! One file and no crates, so that plain rustc makes a static program of it, for an image FROM scratch.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const PORT: u16 = 5000;

/// Year, bachelor's, master's and doctor's degrees.
const DEGREES: [(u16, u32, u32, u32); 5] = [
    (2017, 4102, 1320, 287),
    (2018, 4215, 1388, 301),
    (2019, 4390, 1467, 296),
    (2020, 4288, 1502, 274),
    (2021, 4471, 1610, 318),
];

fn main() -> io::Result<()> {
    end_at_a_signal();
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    eprintln!("degrees: listening on port {PORT}");
    for stream in listener.incoming() {
        let stream = stream?;
        // A client that goes away concerns nobody else.
        thread::spawn(move || answer(&stream));
    }
    Ok(())
}

fn answer(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The headers are read, or closing the connection would reset it.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let (status, body) = respond(request.split(' ').nth(1).unwrap_or_default());
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn respond(target: &str) -> (&'static str, String) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path != "/degrees" {
        return ("404 Not Found", "{\"error\": \"there is /degrees and /degrees?year=2019\"}\n".to_owned());
    }
    let year = query.split('&').find_map(|pair| pair.strip_prefix("year="));
    let chosen: Vec<String> = DEGREES
        .iter()
        .filter(|(of, ..)| year.is_none_or(|year| year == of.to_string()))
        .map(|(year, bachelor, master, doctor)| {
            format!("  {{\"year\": {year}, \"bachelor\": {bachelor}, \"master\": {master}, \"doctor\": {doctor}}}")
        })
        .collect();
    ("200 OK", format!("[\n{}\n]\n", chosen.join(",\n")))
}

/// As the first process of a container this program would ignore SIGTERM, and `docker stop` take ten seconds.
fn end_at_a_signal() {
    const SIGINT: i32 = 2;
    const SIGTERM: i32 = 15;
    unsafe extern "C" {
        fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
        fn _exit(code: i32) -> !;
    }
    extern "C" fn end(_: i32) {
        // SAFETY: _exit is one of the functions that a signal handler may call.
        unsafe { _exit(0) }
    }
    // SAFETY: `end` is a handler of the right type and calls nothing that a handler may not.
    unsafe {
        signal(SIGINT, end);
        signal(SIGTERM, end);
    }
}
