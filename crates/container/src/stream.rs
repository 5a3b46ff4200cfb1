//! A process of a container with its input and output.

use std::os::fd::{AsFd, OwnedFd};

use biga_sys::process::Child;
use biga_wire::shim::Exit;
use biga_wire::workload::{Host, Interest, Output, StreamId};
use rustix::io::Errno;

/// Parts of a stream that are waited for; the low three bits of a token.
const EXIT: u32 = 0;
const INPUT: u32 = 1;
const STDOUT: u32 = 2;
const STDERR: u32 = 3;
const TERMINAL: u32 = 4;

/// Bytes read at once.
const PIECE: usize = 32 << 10;
/// At the end of a process what it left in its pipes is read without asking for room: no more than this, in case another process goes on writing.
const REST: usize = 2 << 20;

/// Splits a token into stream and part.
pub(crate) fn split(token: u32) -> (StreamId, u32) {
    ((token >> 3) as StreamId, token & 7)
}

/// Shim's ends of a process's streams.
#[derive(Debug)]
pub(crate) enum Ends {
    /// Three pipes; input may be absent.
    Pipes {
        /// Write end.
        input: Option<OwnedFd>,
        /// Read end.
        stdout: OwnedFd,
        /// Read end.
        stderr: OwnedFd,
    },
    /// Master side.
    Terminal(OwnedFd),
}

#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    held: bool,
}

/// A process with its streams, all non-blocking.
#[derive(Debug)]
pub(crate) struct Stream {
    id: StreamId,
    pub(crate) child: Child,
    input: Option<OwnedFd>,
    stdout: Option<Source>,
    stderr: Option<Source>,
    terminal: Option<Source>,
    input_blocked: bool,
    /// Keeps the terminal alive while nobody inside has it open.
    peer: Option<OwnedFd>,
}

impl Stream {
    /// Takes a process over and waits on everything of it.
    pub(crate) fn new(id: StreamId, child: Child, ends: Ends, host: &mut dyn Host) -> std::io::Result<Stream> {
        let source = |fd| Some(Source { fd, held: false });
        let (input, stdout, stderr, terminal) = match ends {
            Ends::Pipes { input, stdout, stderr } => (input, source(stdout), source(stderr), None),
            Ends::Terminal(master) => (None, None, None, source(master)),
        };
        let stream = Stream {
            id,
            child,
            input,
            stdout,
            stderr,
            terminal,
            input_blocked: false,
            peer: None,
        };
        host.watch(stream.child.pidfd.as_fd(), stream.token(EXIT), Interest::READ)?;
        for (source, part) in [
            (&stream.stdout, STDOUT),
            (&stream.stderr, STDERR),
            (&stream.terminal, TERMINAL),
        ] {
            if let Some(s) = source {
                host.watch(s.fd.as_fd(), stream.token(part), Interest::READ)?;
            }
        }
        Ok(stream)
    }

    /// Keeps its terminal until the process ends, also while nobody inside has it open: an init system closes its own streams and
    /// opens the console when it has something to say.
    pub(crate) fn keep_terminal(&mut self) -> std::io::Result<()> {
        use rustix::pty::OpenptFlags;
        if let Some(master) = &self.terminal {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            self.peer = Some(rustix::pty::ioctl_tiocgptpeer(&master.fd, flags)?);
        }
        Ok(())
    }

    fn token(&self, part: u32) -> u32 {
        u32::from(self.id) << 3 | part
    }

    /// Handles readiness of one part; true when the process ended (it is then to be waited for).
    pub(crate) fn ready(&mut self, part: u32, ready: Interest, host: &mut dyn Host) -> bool {
        match part {
            EXIT => return true,
            INPUT => self.unblock(host),
            STDOUT | STDERR => self.read(part, host),
            _ => {
                if ready.write && self.input_blocked {
                    self.unblock(host);
                }
                if ready.read {
                    self.read(TERMINAL, host);
                }
            }
        }
        false
    }

    fn source(&mut self, part: u32) -> &mut Option<Source> {
        match part {
            STDOUT => &mut self.stdout,
            STDERR => &mut self.stderr,
            _ => &mut self.terminal,
        }
    }

    fn read(&mut self, part: u32, host: &mut dyn Host) {
        let id = self.id;
        let blocked = self.input_blocked;
        let token = self.token(part);
        let source = self.source(part);
        let Some(s) = source else { return };
        let room = host.room(id).min(PIECE);
        if room == 0 {
            // Errors and hang-ups would be reported all the time, so it is not waited for at all, unless for input.
            s.held = true;
            host.unwatch(s.fd.as_fd());
            if part == TERMINAL && blocked {
                // The descriptor is valid, so this cannot fail.
                let _ = host.watch(s.fd.as_fd(), token, Interest::WRITE);
            }
            return;
        }
        if !read_once(s, id, output_of(part), room, host).1 {
            host.unwatch(s.fd.as_fd());
            *source = None;
        }
    }

    /// There is room for output again.
    pub(crate) fn output_room(&mut self, host: &mut dyn Host) {
        let blocked = self.input_blocked;
        for part in [STDOUT, STDERR, TERMINAL] {
            let token = self.token(part);
            if let Some(s) = self.source(part).as_mut().filter(|s| s.held) {
                s.held = false;
                let interest = Interest {
                    read: true,
                    write: part == TERMINAL && blocked,
                };
                let _ = host.watch(s.fd.as_fd(), token, interest);
            }
        }
    }

    /// Reaps its process if that ended, and passes on what is still in its pipes.
    pub fn ended(&mut self, host: &mut dyn Host) -> Option<Exit> {
        let (code, signal, error) = match self.child.wait(false) {
            Ok(None) => return None,
            Ok(Some(ended)) => (ended.code(), ended.signal(), None),
            // Never "exited with 0": what is not known is said.
            Err(e) => (255, None, Some(format!("the exit status was lost: {e}"))),
        };
        self.drain(host);
        Some(Exit {
            code,
            signal,
            error,
            ..Exit::default()
        })
    }

    /// Reads what the ended process left behind.
    pub(crate) fn drain(&mut self, host: &mut dyn Host) {
        let id = self.id;
        for part in [STDOUT, STDERR, TERMINAL] {
            let Some(mut s) = self.source(part).take() else {
                continue;
            };
            let mut left = REST;
            loop {
                let (n, open) = read_once(&mut s, id, output_of(part), PIECE, host);
                left = left.saturating_sub(n);
                if n == 0 || !open || left == 0 {
                    break;
                }
            }
            host.unwatch(s.fd.as_fd());
        }
        self.close_input(host);
        host.unwatch(self.child.pidfd.as_fd());
    }

    /// Writes what fits; answers how much was taken.
    pub(crate) fn input(&mut self, bytes: &[u8], host: &mut dyn Host) -> usize {
        let (fd, part) = match (&self.input, &self.terminal) {
            (Some(pipe), _) => (pipe, INPUT),
            (None, Some(terminal)) => (&terminal.fd, TERMINAL),
            // Closed: dropped.
            (None, None) => return bytes.len(),
        };
        let mut taken = 0;
        while taken < bytes.len() {
            match rustix::io::write(fd, &bytes[taken..]) {
                Ok(n) => taken += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.input_blocked = true;
                    let held = self.terminal.as_ref().is_some_and(|t| t.held);
                    let interest = Interest {
                        read: part == TERMINAL && !held,
                        write: true,
                    };
                    let _ = host.watch(fd.as_fd(), self.token(part), interest);
                    return taken;
                }
                // Nobody reads it any more.
                Err(_) => {
                    if part == INPUT {
                        self.close_input(host);
                    }
                    return bytes.len();
                }
            }
        }
        taken
    }

    fn unblock(&mut self, host: &mut dyn Host) {
        self.input_blocked = false;
        if let Some(pipe) = &self.input {
            host.unwatch(pipe.as_fd());
        } else if let Some(t) = &self.terminal {
            if t.held {
                host.unwatch(t.fd.as_fd());
            } else {
                let _ = host.watch(t.fd.as_fd(), self.token(TERMINAL), Interest::READ);
            }
        }
        host.input_room(self.id);
    }

    /// The pipes of standard input, output and error, as links in `/proc/PID/fd` name them; those that are still open.
    pub(crate) fn pipes(&self) -> [Option<String>; 3] {
        let name = |fd: &OwnedFd| rustix::fs::fstat(fd).ok().map(|s| format!("pipe:[{}]", s.st_ino));
        let output = |s: &Option<Source>| s.as_ref().and_then(|s| name(&s.fd));
        [
            self.input.as_ref().and_then(name),
            output(&self.stdout),
            output(&self.stderr),
        ]
    }

    /// Closes the input pipe.
    pub(crate) fn close_input(&mut self, host: &mut dyn Host) {
        if let Some(pipe) = self.input.take() {
            host.unwatch(pipe.as_fd());
            self.input_blocked = false;
        }
    }

    /// Sets the size of the terminal, if there is one.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        if let Some(t) = &self.terminal {
            // A terminal whose processes are gone takes no size, and needs none.
            let _ = crate::setup::resize(&t.fd, rows, columns);
        }
    }
}

fn output_of(part: u32) -> Output {
    if part == STDERR { Output::Stderr } else { Output::Stdout }
}

/// Reads one piece: how much, and whether there can be more.
fn read_once(s: &mut Source, id: StreamId, output: Output, most: usize, host: &mut dyn Host) -> (usize, bool) {
    let mut buf = [0u8; PIECE];
    match rustix::io::read(&s.fd, &mut buf[..most.min(PIECE)]) {
        Ok(0) => (0, false),
        Ok(n) => {
            host.output(id, output, &buf[..n]);
            (n, true)
        }
        Err(Errno::AGAIN | Errno::INTR) => (0, true),
        // A terminal answers so when its last process is gone.
        Err(_) => (0, false),
    }
}
