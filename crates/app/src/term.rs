//! The user's terminal.

use std::io::IsTerminal;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Raw mode of the terminal at standard input; the mode before comes back when this is dropped, whatever the way out.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Enters raw mode. `None` where standard input is no terminal.
    pub fn enter() -> std::io::Result<Option<RawMode>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(RawMode { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to give back.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The terminal does not show what is typed, until this is dropped.
#[derive(Debug)]
pub struct NoEcho {
    before: Termios,
}

impl NoEcho {
    /// Stops showing.
    pub fn enter() -> std::io::Result<NoEcho> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(rustix::termios::LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &quiet)?;
        Ok(NoEcho { before })
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to give back.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Rows and columns of the terminal.
pub fn window() -> Option<(u16, u16)> {
    let of = |w: rustix::termios::Winsize| (w.ws_row > 0 && w.ws_col > 0).then_some((w.ws_row, w.ws_col));
    tcgetwinsize(std::io::stdout())
        .ok()
        .and_then(of)
        .or_else(|| tcgetwinsize(std::io::stdin()).ok().and_then(of))
}

/// Whether standard input is a terminal.
pub fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Finds the keys that leave a stream without ending it (ctrl-p ctrl-q) in what the user types.
#[derive(Debug, Default)]
pub struct DetachKeys {
    pending: bool,
}

const CTRL_P: u8 = 0x10;
const CTRL_Q: u8 = 0x11;

impl DetachKeys {
    /// What of `typed` goes on to the process, and whether the keys were seen.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len() + 1);
        for b in typed {
            match (self.pending, *b) {
                (true, CTRL_Q) => {
                    self.pending = false;
                    return (out, true);
                }
                // The first key may be the beginning: it is held back until the next one is known.
                (false, CTRL_P) => self.pending = true,
                (true, other) => {
                    out.push(CTRL_P);
                    self.pending = other == CTRL_P;
                    if !self.pending {
                        out.push(other);
                    }
                }
                (false, other) => out.push(other),
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads() {
        let mut k = DetachKeys::default();
        assert_eq!(k.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(k.filter(b"x"), (b"\x10x".to_vec(), false));
        assert_eq!(k.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(k.filter(b"\x11rest"), (b"".to_vec(), true));
        assert_eq!(k.filter(b"\x11"), (b"\x11".to_vec(), false));
    }
}
