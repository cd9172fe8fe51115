//! The bounded queue between the events and the one thread that writes them.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread::JoinHandle,
};

use tracing_subscriber::fmt::MakeWriter;

use super::file::RotatedFile;
use crate::cli::LogFormat;

/// Lines that may wait.
const MAX_QUEUED_LINES: usize = 8192;

/// One thing for the writer to do.
enum Order {
    Line(Vec<u8>),
    End,
}

/// The writer's end. Dropping it writes what is queued, then ends the thread.
#[derive(Debug)]
pub(super) struct Writer {
    orders: SyncSender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// Where events put their lines; never blocks.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

/// One event being formatted; it is queued as one line when dropped.
#[derive(Debug)]
pub(super) struct Line<'a> {
    sender: &'a Sender,
    bytes: Vec<u8>,
}

/// Starts the writer thread.
pub(super) fn start(
    format: LogFormat,
    console: impl Write + Send + 'static,
    file: Option<RotatedFile>,
) -> io::Result<(Writer, Sender)> {
    let (orders, queued) = mpsc::sync_channel(MAX_QUEUED_LINES);
    let lost = Arc::new(AtomicU64::new(0));
    let sender = Sender { orders: orders.clone(), lost: lost.clone() };
    let thread = std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write(format, &queued, &lost, console, file))?;
    Ok((Writer { orders, thread: Some(thread) }, sender))
}

fn write(
    format: LogFormat,
    queued: &Receiver<Order>,
    lost: &AtomicU64,
    mut console: impl Write,
    mut file: Option<RotatedFile>,
) {
    let mut put = |line: &[u8]| {
        // A console that is gone (a closed pipe) must not silence the file, nor the other way round, and there is
        // nobody left to tell but the other of the two.
        let _ = console.write_all(line).and_then(|()| console.flush());
        if let Some(file) = &mut file
            && let Err(error) = file.write(line)
        {
            let _ = writeln!(console, "the log file cannot be written: {error}");
        }
    };
    while let Ok(Order::Line(line)) = queued.recv() {
        put(&line);
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            put(lost_line(format, lost).as_bytes());
        }
    }
}

fn lost_line(format: LogFormat, lost: u64) -> String {
    match format {
        LogFormat::Text => format!("WARN log lines lost, the writer is too slow lost={lost}\n"),
        LogFormat::Json => {
            let line = serde_json::json!({ "level": "WARN", "message": "log lines lost, the writer is too slow", "lost": lost });
            format!("{line}\n")
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Waits for room if need be; a thread that is gone needs no order.
        let _ = self.orders.send(Order::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<'a> MakeWriter<'a> for Sender {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { sender: self, bytes: Vec::new() }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if let Err(TrySendError::Full(_)) = self.sender.orders.try_send(Order::Line(bytes)) {
            self.sender.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A console that lets the writer pass only when told.
    #[derive(Clone, Default)]
    struct Console {
        written: Arc<Mutex<Vec<u8>>>,
        gate: Arc<Mutex<()>>,
    }

    impl Write for Console {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.gate.lock().unwrap();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Console {
        fn text(&self) -> String {
            String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
        }
    }

    fn log(sender: &Sender, line: &str) {
        sender.make_writer().write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn what_is_queued_is_written_before_the_end() {
        let console = Console::default();
        let (writer, sender) = start(LogFormat::Json, console.clone(), None).unwrap();
        for line in 0..1000 {
            log(&sender, &format!("{line}\n"));
        }
        drop(writer);
        assert_eq!(console.text().lines().count(), 1000);
        log(&sender, "too late\n");
    }

    #[test]
    fn a_full_queue_drops_lines_without_waiting_and_says_how_many() {
        let console = Console::default();
        let closed = console.gate.lock().unwrap();
        let (writer, sender) = start(LogFormat::Json, console.clone(), None).unwrap();
        // One line may be in the writer's hand besides those that are queued.
        let sent = MAX_QUEUED_LINES + 101;
        for _ in 0..sent {
            log(&sender, "line\n");
        }
        drop(closed);
        drop(writer);
        let text = console.text();
        let kept = text.lines().filter(|line| *line == "line").count();
        let told = text.lines().find(|line| line.contains("log lines lost")).unwrap();
        let told: serde_json::Value = serde_json::from_str(told).unwrap();
        assert_eq!(kept as u64 + told["lost"].as_u64().unwrap(), sent as u64);
    }

    #[test]
    fn lines_reach_the_file_even_when_the_console_is_gone() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("miner.log");
        let options = super::super::FileOptions {
            path: path.clone(),
            rotation: super::super::Rotation::daily(),
            retention: super::super::Retention::Files(3),
        };
        let (writer, sender) = start(LogFormat::Text, Gone, Some(RotatedFile::open(&options).unwrap())).unwrap();
        log(&sender, "still here\n");
        drop(writer);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "still here\n");
    }
}
