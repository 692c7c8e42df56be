//! A terminal with somebody before it, for what a command does only there: ask, and draw.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::Child,
    sync::mpsc::{Receiver, channel},
    thread,
};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{
    binary::{Ended, command},
    wait::LIMIT,
};

/// What ends the input where it is typed at the beginning of a line (termios(3), `VEOF`).
pub const END_OF_INPUT: &str = "\x04";

/// A run of `larder` on a terminal.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl Terminal {
    /// Begins a run with these arguments.
    pub fn begin(arguments: &[&str]) -> Terminal {
        let keyboard =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let terminal = || File::options().read(true).write(true).open(&name).unwrap();
        let mut command = command();
        command.args(arguments).env("TERM", "xterm");
        command.stdin(terminal()).stdout(terminal()).stderr(terminal());
        let child = command.spawn().unwrap();
        let keyboard = File::from(keyboard);
        let screen = watch(keyboard.try_clone().unwrap());
        Terminal { child, keyboard, screen, shown: Vec::new() }
    }

    /// Returns when it shows `text`.
    pub fn wait_for(&mut self, text: &str) {
        while !self.shown().contains(text) {
            let more = self.screen.recv_timeout(LIMIT);
            self.shown.extend(more.unwrap_or_else(|_| panic!("{text} in vain: {}", self.shown())));
        }
    }

    /// Types something.
    pub fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// How it ends by itself, with all that was to be seen, control sequences and all.
    pub fn end(mut self) -> Ended {
        while let Ok(more) = self.screen.recv_timeout(LIMIT) {
            self.shown.extend(more);
        }
        Ended { code: self.child.wait().unwrap().code(), output: self.shown() }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that is shown, until nobody has the terminal open: reading it is an error then.
fn watch(mut terminal: File) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = terminal.read(&mut piece) {
            if sender.send(piece[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}
