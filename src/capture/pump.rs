//! The door to the pump thread, and what passes through it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc::UnboundedSender;

use crate::config::Logs;
use crate::name::{ProcessName, RunId};

use super::follow::Followers;
use super::pump_loop::Worker;
use super::read::Cursor;
use super::totals::Totals;

/// Which output of a process; merged output is [`Channel::Stdout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    Stdout,
    Stderr,
}

/// One output of one run.
#[derive(Debug)]
pub struct Stream {
    pub run: RunId,
    pub process: ProcessName,
    pub channel: Channel,
    /// The reading end, `O_RDONLY | O_NONBLOCK`.
    pub fifo: OwnedFd,
    /// The current segment, such as `LOGDIR/web/0.stdout.log`.
    pub log: PathBuf,
    pub logs: Logs,
    /// Uid and gid that the log files are given.
    pub owner: Option<(u32, u32)>,
    /// Where it is written down at which place in the log the output of this run begins, before
    /// anything of it is there; told by [`Notice::Marked`].
    pub mark: Option<PathBuf>,
}

/// What the pump tells the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Everything that the run printed is in its log, or counted as dropped.
    Ended {
        run: RunId,
    },
    /// The output of the run begins there, also if it was attached by another pump before.
    Marked {
        run: RunId,
        log: PathBuf,
        channel: Channel,
        from: Cursor,
    },
    /// Output cannot be written; said once, until `Recovered`.
    Trouble {
        process: ProcessName,
        message: String,
    },
    Recovered {
        process: ProcessName,
        message: String,
    },
}

#[derive(Debug)]
pub(super) enum Message {
    Attach(Box<Stream>),
    Finish(RunId),
    Configure(ProcessName, Box<Logs>),
    Reopen,
    Stop,
}

/// The thread that moves output into logs. Its methods never block; messages are carried out in
/// the order in which they were sent.
#[derive(Debug)]
pub struct Pump {
    messages: Sender<Message>,
    wake: Arc<EventFd>,
    followers: Arc<Followers>,
    totals: Arc<Totals>,
    thread: JoinHandle<()>,
}

impl Pump {
    /// Starts the thread `mend-pump`.
    ///
    /// # Errors
    ///
    /// When the thread or its file descriptors cannot be made.
    pub fn start(notices: UnboundedSender<Notice>) -> io::Result<Self> {
        let (messages, inbox) = unbounded();
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let followers = Arc::new(Followers::default());
        let totals = Arc::new(Totals::default());
        let (hub, counted) = (Arc::clone(&followers), Arc::clone(&totals));
        let worker = Worker::new(inbox, Arc::clone(&wake), notices, hub, counted)?;
        let thread =
            thread::Builder::new().name("mend-pump".to_owned()).spawn(move || worker.run())?;
        Ok(Self { messages, wake, followers, totals, thread })
    }

    fn send(&self, message: Message) {
        // The thread only ends with `stop`, and a full eventfd has woken it already.
        let _ = self.messages.send(message);
        let _ = self.wake.write(1);
    }

    /// Pours `stream` into its log from now on, behind what earlier runs have left there.
    pub fn attach(&self, stream: Stream) {
        self.send(Message::Attach(Box::new(stream)));
    }

    /// Tells that nothing of `run` is alive: the rest of its output is moved, then
    /// [`Notice::Ended`] is sent, at once for a run without streams.
    pub fn finish(&self, run: RunId) {
        self.send(Message::Finish(run));
    }

    /// Changes the limits of a process's logs in place.
    pub fn configure(&self, process: &ProcessName, logs: &Logs) {
        self.send(Message::Configure(process.clone(), Box::new(logs.clone())));
    }

    /// Opens all current segments again, after someone else has moved them away.
    pub fn reopen(&self) {
        self.send(Message::Reopen);
    }

    /// Returns the hub through which logs are followed.
    pub fn followers(&self) -> Arc<Followers> {
        Arc::clone(&self.followers)
    }

    /// Returns how much was moved and dropped so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Ends the thread. What is in the FIFOs stays there for the next pump.
    pub fn stop(self) {
        self.send(Message::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the log pump has panicked");
        }
    }
}
