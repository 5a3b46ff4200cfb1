//! Where lines of a log are sent beside the file: the journal, or syslog.
//!
//! A receiver that is not there, or does not keep up, never holds up the instance: lines wait for it in a bounded queue, and
//! what does not fit is lost and counted. Nothing here blocks but [`Sink::finish`], for a moment.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use biga_wire::config::{self, SyslogFormat, SyslogTo};
use biga_wire::workload::Output;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, ipproto, socket_with};

/// Bytes of lines that wait at most.
const QUEUE: usize = 1 << 20;
/// When a receiver that is busy is tried again.
const BUSY: Duration = Duration::from_millis(20);
/// When one that is not there is tried again.
const ABSENT: Duration = Duration::from_secs(1);
/// How long the end of a run waits for a receiver that takes lines.
const LAST: Duration = Duration::from_millis(500);
/// Where a syslog daemon of this host listens (syslog(3)).
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// `informational` and `error` (RFC 5424, 6.2.1; sd-daemon(3)).
const LEVELS: [u8; 2] = [6, 3];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A line as it was logged.
pub struct Line<'a> {
    /// RFC 3339 in UTC with nanoseconds.
    pub stamp: &'a str,
    /// Which stream.
    pub output: Output,
    /// The next line continues it.
    pub partial: bool,
    /// Without its end.
    pub text: &'a [u8],
}

/// A receiver of lines.
#[derive(Debug)]
pub struct Sink {
    to: config::Sink,
    socket: Option<Socket>,
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// How much of the first that waits was sent.
    sent: usize,
    lost: u64,
    again: Option<Instant>,
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    /// One message a datagram; else one after the other.
    datagrams: bool,
}

impl Sink {
    /// Nothing is opened before something is sent.
    pub fn new(to: config::Sink) -> Sink {
        Sink {
            to,
            socket: None,
            waiting: VecDeque::new(),
            bytes: 0,
            sent: 0,
            lost: 0,
            again: None,
        }
    }

    /// Sends a line, or has it wait.
    pub fn line(&mut self, line: &Line<'_>) {
        let message = message(&self.to, line);
        if self.bytes + message.len() > QUEUE {
            self.lost += 1;
            return;
        }
        self.push(message);
    }

    fn push(&mut self, message: Vec<u8>) {
        self.bytes += message.len();
        self.waiting.push_back(message);
    }

    /// Sends what waits, as far as the receiver takes it.
    pub fn flush(&mut self, stamp: &str) {
        if self.again.is_some_and(|t| t > Instant::now()) {
            return;
        }
        self.again = None;
        loop {
            if self.waiting.is_empty() {
                if self.lost == 0 {
                    return;
                }
                let text = format!("{} lines of this log were lost: their receiver took none", self.lost);
                self.lost = 0;
                let said = Line {
                    stamp,
                    output: Output::Stderr,
                    partial: false,
                    text: text.as_bytes(),
                };
                self.push(message(&self.to, &said));
            }
            match self.send_first() {
                Ok(()) => {}
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOTCONN | Errno::INPROGRESS | Errno::ALREADY)
                    if self.socket.is_some() =>
                {
                    return self.later(BUSY);
                }
                // It would be too large another time, too.
                Err(Errno::MSGSIZE) => self.drop_first(),
                Err(_) => {
                    (self.socket, self.sent) = (None, 0);
                    return self.later(ABSENT);
                }
            }
        }
    }

    fn later(&mut self, after: Duration) {
        self.again = Some(Instant::now() + after);
    }

    fn send_first(&mut self) -> Result<(), Errno> {
        if self.socket.is_none() {
            self.socket = Some(open(&self.to)?);
        }
        let (Some(socket), Some(first)) = (&self.socket, self.waiting.front()) else {
            return Ok(());
        };
        let rest = first.get(self.sent..).unwrap_or_default();
        let n = rustix::net::send(&socket.fd, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        self.sent += n;
        if socket.datagrams || self.sent >= first.len() {
            self.drop_first();
        }
        Ok(())
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.waiting.pop_front() {
            self.bytes -= first.len();
        }
        self.sent = 0;
    }

    /// When to flush again; `None` where nothing waits.
    pub fn wait(&self) -> Option<Duration> {
        let again = self.again.map(|t| t.saturating_duration_since(Instant::now()));
        (!self.waiting.is_empty()).then(|| again.unwrap_or(BUSY))
    }

    /// At the end of a run: a receiver that is there gets a moment to take the rest.
    pub fn finish(&mut self, stamp: &str) {
        let end = Instant::now() + LAST;
        loop {
            if self.socket.is_some() {
                self.again = None;
            }
            self.flush(stamp);
            let left = end.saturating_duration_since(Instant::now());
            let Some(socket) = self
                .socket
                .as_ref()
                .filter(|_| !self.waiting.is_empty() && !left.is_zero())
            else {
                return;
            };
            let mut fds = [PollFd::new(&socket.fd, PollFlags::OUT)];
            // A busy datagram receiver may call itself writable: no spinning.
            let nap = Timespec::try_from(left.min(BUSY)).ok();
            let _ = poll(&mut fds, nap.as_ref());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn open(to: &config::Sink) -> Result<Socket, Errno> {
    match to {
        config::Sink::Journal { socket, .. } => unix(socket, SocketType::DGRAM),
        config::Sink::Syslog { to, .. } => match to {
            SyslogTo::Local => {
                let mut last = Errno::NOENT;
                for path in LOCAL {
                    match unix_any(Path::new(path)) {
                        Ok(s) => return Ok(s),
                        Err(e) => last = e,
                    }
                }
                Err(last)
            }
            SyslogTo::Unix(path) => unix_any(path),
            SyslogTo::Udp(address) => inet(address, SocketType::DGRAM),
            SyslogTo::Tcp(address) => inet(address, SocketType::STREAM),
        },
    }
}

/// Datagrams where the receiver takes those, else a stream.
fn unix_any(path: &Path) -> Result<Socket, Errno> {
    match unix(path, SocketType::DGRAM) {
        Err(Errno::PROTOTYPE) => unix(path, SocketType::STREAM),
        other => other,
    }
}

fn unix(path: &Path, kind: SocketType) -> Result<Socket, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::UNIX, kind, flags, None)?;
    rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
    Ok(Socket {
        fd,
        datagrams: kind == SocketType::DGRAM,
    })
}

fn inet(address: &SocketAddr, kind: SocketType) -> Result<Socket, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = if kind == SocketType::DGRAM {
        ipproto::UDP
    } else {
        ipproto::TCP
    };
    let fd = socket_with(family, kind, flags, Some(protocol))?;
    match rustix::net::connect(fd.as_fd(), address) {
        // The first send tells how it came out.
        Ok(()) | Err(Errno::INPROGRESS) => Ok(Socket {
            fd,
            datagrams: kind == SocketType::DGRAM,
        }),
        Err(e) => Err(e),
    }
}

fn message(to: &config::Sink, line: &Line<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.text.len() + 256);
    // Writing into memory cannot fail.
    let _ = match to {
        config::Sink::Journal { fields, .. } => journal(&mut out, fields, line),
        config::Sink::Syslog {
            facility,
            format,
            tag,
            hostname,
            ..
        } => syslog(&mut out, *facility, *format, tag, hostname, line),
    };
    out
}

fn level(output: Output) -> u8 {
    LEVELS[usize::from(output == Output::Stderr)]
}

/// One entry in the journal's own form (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
fn journal(out: &mut Vec<u8>, fields: &BTreeMap<String, String>, line: &Line<'_>) -> io::Result<()> {
    writeln!(out, "PRIORITY={}", level(line.output))?;
    writeln!(out, "SYSLOG_TIMESTAMP={}", line.stamp)?;
    for (name, value) in fields {
        field(out, name, value.as_bytes())?;
    }
    if line.partial {
        writeln!(out, "CONTAINER_PARTIAL_MESSAGE=true")?;
    }
    field(out, "MESSAGE", line.text)
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) -> io::Result<()> {
    out.write_all(name.as_bytes())?;
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.write_all(&(value.len() as u64).to_le_bytes())?;
    } else {
        out.push(b'=');
    }
    out.write_all(value)?;
    out.push(b'\n');
    Ok(())
}

fn syslog(
    out: &mut Vec<u8>,
    facility: u8,
    format: SyslogFormat,
    tag: &str,
    hostname: &str,
    line: &Line<'_>,
) -> io::Result<()> {
    let priority = u32::from(facility) << 3 | u32::from(level(line.output));
    let pid = std::process::id();
    let stamp = line.stamp;
    match format {
        SyslogFormat::Unix => write!(out, "<{priority}>{} {tag}[{pid}]: ", short(stamp))?,
        SyslogFormat::Rfc3164 => write!(out, "<{priority}>{} {hostname} {tag}[{pid}]: ", short(stamp))?,
        SyslogFormat::Rfc5424 | SyslogFormat::Rfc5424Micro => {
            let digits = if format == SyslogFormat::Rfc5424 { 19 } else { 26 };
            let stamp = stamp.get(..digits).unwrap_or(stamp);
            write!(out, "<{priority}>1 {stamp}Z {hostname} {tag} {pid} {tag} - ")?;
        }
    }
    out.write_all(line.text)?;
    out.push(b'\n');
    Ok(())
}

/// `Jan _2 15:04:05` of an RFC 3339 time, in its own zone.
fn short(stamp: &str) -> String {
    let part = |a, b| stamp.get(a..b).unwrap_or_default();
    let month = part(5, 7).parse::<usize>().unwrap_or(1).clamp(1, 12);
    let day = part(8, 10).trim_start_matches('0');
    format!("{} {day:>2} {}", MONTHS[month - 1], part(11, 19))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    const STAMP: &str = "2026-12-01T02:03:04.056789012Z";

    fn said(text: &str) -> Line<'_> {
        Line {
            stamp: STAMP,
            output: Output::Stdout,
            partial: false,
            text: text.as_bytes(),
        }
    }

    fn to(to: SyslogTo, format: SyslogFormat) -> Sink {
        Sink::new(config::Sink::Syslog {
            to,
            facility: 3,
            format,
            tag: "tag".into(),
            hostname: "host".into(),
        })
    }

    fn received(from: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let n = from.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    #[test]
    fn entries_of_the_journal_hold_line_ends_in_their_fields() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let there = UnixDatagram::bind(&socket).unwrap();
        let fields = [("CONTAINER_NAME", "web"), ("NOTE", "two\nlines")];
        let fields = fields
            .into_iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        let mut sink = Sink::new(config::Sink::Journal { socket, fields });
        sink.line(&Line {
            partial: true,
            output: Output::Stderr,
            ..said("text")
        });
        sink.flush(STAMP);
        let want = format!(
            "PRIORITY=3\nSYSLOG_TIMESTAMP={STAMP}\nCONTAINER_NAME=web\nNOTE\n\u{9}\0\0\0\0\0\0\0two\nlines\n\
             CONTAINER_PARTIAL_MESSAGE=true\nMESSAGE=text\n"
        );
        assert_eq!(received(&there), want);
        assert_eq!(sink.wait(), None);
    }

    #[test]
    fn every_form_of_syslog() {
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let pid = std::process::id();
        for (format, want) in [
            (SyslogFormat::Unix, format!("<30>Dec  1 02:03:04 tag[{pid}]: text\n")),
            (
                SyslogFormat::Rfc3164,
                format!("<30>Dec  1 02:03:04 host tag[{pid}]: text\n"),
            ),
            (
                SyslogFormat::Rfc5424,
                format!("<30>1 2026-12-01T02:03:04Z host tag {pid} tag - text\n"),
            ),
            (
                SyslogFormat::Rfc5424Micro,
                format!("<30>1 2026-12-01T02:03:04.056789Z host tag {pid} tag - text\n"),
            ),
        ] {
            let mut sink = to(SyslogTo::Udp(there.local_addr().unwrap()), format);
            sink.line(&said("text"));
            sink.flush(STAMP);
            let mut buffer = [0; 1024];
            let n = there.recv(&mut buffer).unwrap();
            assert_eq!(String::from_utf8_lossy(&buffer[..n]), want);
        }
    }

    #[test]
    fn what_waits_for_a_receiver_is_bounded_and_arrives_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut sink = to(SyslogTo::Unix(path.clone()), SyslogFormat::Unix);
        let long = "x".repeat(100 << 10);
        for n in 0..40 {
            sink.line(&said(&format!("{n} {long}")));
            sink.flush(STAMP);
        }
        assert!(sink.bytes <= QUEUE && sink.lost > 0, "{} {}", sink.bytes, sink.lost);
        assert!(sink.wait().is_some_and(|d| d <= ABSENT));
        // The receiver comes: a stream this time.
        let listener = UnixListener::bind(&path).unwrap();
        let reading = std::thread::spawn(move || {
            let mut all = String::new();
            listener.accept().unwrap().0.read_to_string(&mut all).unwrap();
            all
        });
        sink.again = None;
        let end = Instant::now() + Duration::from_secs(60);
        while sink.wait().is_some() {
            assert!(Instant::now() < end);
            sink.flush(STAMP);
            std::thread::sleep(Duration::from_millis(1));
        }
        let lost = 40 - sink_lines(&mut sink, reading);
        assert!(lost > 0);
    }

    /// Lines that arrived, after a look at their order and at the last, which tells of the lost ones.
    fn sink_lines(sink: &mut Sink, reading: std::thread::JoinHandle<String>) -> usize {
        sink.socket = None;
        let all = reading.join().unwrap();
        let texts: Vec<&str> = all.lines().map(|l| l.split_once("]: ").unwrap().1).collect();
        let (last, lines) = texts.split_last().unwrap();
        for (n, line) in lines.iter().enumerate() {
            assert!(line.starts_with(&format!("{n} x")), "{n}");
        }
        assert!(
            last.starts_with(&format!("{} lines of this log were lost", 40 - lines.len())),
            "{last}"
        );
        lines.len()
    }

    #[test]
    fn a_connection_that_broke_is_made_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sink = to(SyslogTo::Tcp(listener.local_addr().unwrap()), SyslogFormat::Unix);
        sink.line(&said("one"));
        sink.finish(STAMP);
        let (mut first, _) = listener.accept().unwrap();
        let mut buffer = [0; 1024];
        let n = first.read(&mut buffer).unwrap();
        assert!(String::from_utf8_lossy(&buffer[..n]).ends_with(": one\n"));
        drop(first);
        let reading = std::thread::spawn(move || {
            let (mut again, _) = listener.accept().unwrap();
            let mut text = String::new();
            while !text.ends_with(": last\n") {
                let mut buffer = [0; 1024];
                let n = again.read(&mut buffer).unwrap();
                text.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        // What was sent into the broken connection is lost, as with every syslog over TCP; what comes later is not.
        let end = Instant::now() + Duration::from_secs(60);
        while !reading.is_finished() {
            assert!(Instant::now() < end);
            sink.again = None;
            sink.line(&said("last"));
            sink.flush(STAMP);
            std::thread::sleep(Duration::from_millis(5));
        }
        reading.join().unwrap();
    }

    #[test]
    fn nobody_waits_for_a_receiver_that_is_not_there() {
        let mut sink = to(SyslogTo::Unix("/nonexistent/log".into()), SyslogFormat::Unix);
        sink.line(&said("text"));
        let begun = Instant::now();
        sink.finish(STAMP);
        assert!(begun.elapsed() < Duration::from_secs(30) && sink.wait().is_some());
    }
}
