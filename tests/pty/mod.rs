//! A program in a terminal of its own: keys in, the screen as a person would see it out.

#![allow(dead_code)] // Each test file uses a part.

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Slow machines run these too.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Pty {
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    parser: Arc<Mutex<vt100::Parser>>,
    received: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    bytes: usize,
    first: Option<Instant>,
}

/// A command with a terminal's environment and its state below `home`.
pub fn command(program: impl AsRef<std::ffi::OsStr>, home: &Path) -> CommandBuilder {
    let mut c = CommandBuilder::new(program);
    c.env("TERM", "xterm-256color");
    c.env("HOME", home);
    c.env("XDG_STATE_HOME", home.join("state"));
    c.env("XDG_RUNTIME_DIR", home.join("run"));
    c.env("XDG_CACHE_HOME", home.join("cache"));
    c.env("XDG_CONFIG_HOME", home.join("config"));
    for absent in [
        "TMUX",
        "SSH_CONNECTION",
        "NO_COLOR",
        "FINETOP_ASCII",
        "FINETOP_THEME",
        "SLURM_JOB_ID",
        "HF_HOME",
        "TZ",
        "COLORTERM",
    ] {
        c.env_remove(absent);
    }
    c.env("RUST_BACKTRACE", "0");
    c.cwd(home);
    c
}

/// This test binary again, as a process of its own that runs the ignored test `name`.
pub fn this_test(name: &str, home: &Path) -> CommandBuilder {
    let mut c = command(std::env::current_exe().unwrap(), home);
    c.args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    c
}

impl Pty {
    pub fn start(command: CommandBuilder, columns: u16, rows: u16) -> Pty {
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let parser = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let received = Arc::new(Mutex::new(Received::default()));
        let mut reader = pair.master.try_clone_reader().unwrap();
        let (to, count) = (Arc::clone(&parser), Arc::clone(&received));
        std::thread::spawn(move || {
            let mut buffer = [0; 1 << 16];
            while let Ok(n) = reader.read(&mut buffer) {
                if n == 0 {
                    break;
                }
                to.lock().unwrap().process(&buffer[..n]);
                let mut r = count.lock().unwrap();
                r.bytes += n;
                r.first.get_or_insert_with(Instant::now);
            }
        });
        let writer = pair.master.take_writer().unwrap();
        Pty { master: pair.master, writer, child, parser, received }
    }

    pub fn keys(&mut self, keys: &str) {
        self.writer.write_all(keys.as_bytes()).unwrap();
        self.writer.flush().unwrap();
    }

    pub fn text(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// The colours that the screen's text has.
    pub fn colours(&self) -> Vec<vt100::Color> {
        let parser = self.parser.lock().unwrap();
        let (rows, columns) = parser.screen().size();
        let cells = (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c)));
        cells.filter_map(|(r, c)| parser.screen().cell(r, c)).map(vt100::Cell::fgcolor).collect()
    }

    /// Bytes that the program has written.
    pub fn bytes(&self) -> usize {
        self.received.lock().unwrap().bytes
    }

    /// Waits until `holds`, with the screen's text.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let began = Instant::now();
        while !holds(&self.text()) {
            assert!(began.elapsed() < PATIENCE, "never came: {what}; the screen:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the screen shows `text`.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        self.until(text, |screen| screen.contains(text));
    }

    /// Waits until nothing was written for `quiet`; panics after a minute of chatter.
    #[track_caller]
    pub fn falls_silent(&self, quiet: Duration) {
        let began = Instant::now();
        let (mut bytes, mut since) = (self.bytes(), Instant::now());
        while since.elapsed() < quiet {
            assert!(began.elapsed() < PATIENCE, "never silent; the screen:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
            if self.bytes() != bytes {
                (bytes, since) = (self.bytes(), Instant::now());
            }
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.process_id().and_then(|p| rustix::process::Pid::from_raw(p as i32)).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.process_id().unwrap()
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        self.parser.lock().unwrap().screen_mut().set_size(rows, columns);
        self.master.resize(PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 }).unwrap();
    }

    /// Waits for the program's end; its exit code.
    #[track_caller]
    pub fn ends(&mut self) -> u32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // What it wrote last is still on its way to the parser.
                std::thread::sleep(Duration::from_millis(100));
                return status.exit_code();
            }
            assert!(began.elapsed() < PATIENCE, "it did not end; the screen:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What is not as a shell would want it; empty where all is restored.
    pub fn unrestored(&self) -> Vec<&'static str> {
        let parser = self.parser.lock().unwrap();
        let screen = parser.screen();
        let flags = self.master.get_termios().map(|t| format!("{:?}", t.local_flags)).unwrap_or_default();
        let checks = [
            (screen.alternate_screen(), "alternate screen"),
            (screen.hide_cursor(), "hidden cursor"),
            (screen.bracketed_paste(), "bracketed paste"),
            (screen.mouse_protocol_mode() != vt100::MouseProtocolMode::None, "mouse"),
            (!flags.contains("ICANON") || !flags.contains("ECHO"), "raw mode"),
        ];
        checks.into_iter().filter(|(wrong, _)| *wrong).map(|(_, what)| what).collect()
    }

    pub fn on_screen(&self) -> bool {
        self.parser.lock().unwrap().screen().alternate_screen()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}
