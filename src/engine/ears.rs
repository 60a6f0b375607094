//! Hears what runs say of themselves: on their notification sockets (see sd_notify(3)) and on the
//! pipes of their readiness.
//!
//! Nothing is taken out before what it says is written down, so that a brain that is killed in
//! between leaves it to the next one.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::core_loop::Engine;
use super::extra::Extra;
use super::run::Run;
use crate::core::{Event, Word};
use crate::name::RunId;
use crate::os::kinship::{self, Family};
use crate::os::notify_socket::{self, Datagram, MAX_BYTES};
use crate::os::process;
use crate::os::readable::readable;
use crate::os::splice::Peek;
use crate::probe::notify::{self, Said};

/// Datagrams of one run before others get their turn.
const TURN: usize = 32;

/// Something waits to be heard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    run: RunId,
    extra: Extra,
}

/// The ears for all runs. What is heard is only announced here; the loop takes it in.
#[derive(Debug)]
pub(super) struct Ears {
    tasks: BTreeMap<(RunId, Extra), AbortOnDropHandle<()>>,
    sender: UnboundedSender<Heard>,
    /// Runs of which nonsense was heard, which is said once.
    scolded: std::collections::BTreeSet<RunId>,
}

impl Ears {
    pub(super) fn new() -> (Self, UnboundedReceiver<Heard>) {
        let (sender, receiver) = unbounded_channel();
        (Self { tasks: BTreeMap::new(), sender, scolded: Default::default() }, receiver)
    }

    /// Listens to a run as long as it is not forgotten.
    pub(super) fn listen(&mut self, run: RunId, hands: &Run) {
        for (extra, fd) in &hands.extras {
            let sender = self.sender.clone();
            let heard = Heard { run, extra: *extra };
            let waiting = match fd.try_clone().and_then(readable) {
                Ok(waiting) => waiting,
                Err(error) => {
                    warn!(process = %hands.process, %error, "cannot listen to what it says");
                    continue;
                }
            };
            let task = tokio::spawn(async move {
                while let Ok(mut ready) = waiting.readable().await {
                    // A pipe without writers stays readable for ever, and says nothing any more.
                    let is_over = ready.ready().is_read_closed();
                    ready.clear_ready();
                    if sender.send(heard).is_err() || is_over {
                        return;
                    }
                }
            });
            self.tasks.insert((run, *extra), AbortOnDropHandle::new(task));
        }
    }

    pub(super) fn forget(&mut self, run: RunId) {
        self.tasks.remove(&(run, Extra::Notify));
        self.tasks.remove(&(run, Extra::Ready));
        self.scolded.remove(&run);
    }
}

impl Engine {
    /// Takes in what one run has said so far.
    pub(super) fn hear(&mut self, run: RunId) {
        for extra in [Extra::Notify, Extra::Ready] {
            if self.ears.tasks.contains_key(&(run, extra)) {
                self.on_heard(Heard { run, extra });
            }
        }
    }

    /// Takes in what waits.
    pub(super) fn on_heard(&mut self, heard: Heard) {
        match heard.extra {
            Extra::Notify => self.hear_datagrams(heard),
            Extra::Ready => self.hear_line(heard.run),
        }
    }

    fn hear_datagrams(&mut self, heard: Heard) {
        let run = heard.run;
        for _ in 0..TURN {
            let socket = |engine: &Self| {
                let fd = engine.runs.get(&run)?.extra(Extra::Notify)?;
                fd.try_clone_to_owned().ok()
            };
            let Some(socket) = socket(self) else { return };
            match notify_socket::peek(socket.as_fd()) {
                Ok(Some(datagram)) => self.take_in(run, &datagram),
                Ok(None) => return,
                Err(error) => return warn!(%run, %error, "cannot hear what a run says"),
            }
            if let Err(error) = notify_socket::take(socket.as_fd()) {
                return warn!(%run, %error, "cannot take out what a run has said");
            }
        }
        // The rest in another turn; there is no new edge for it.
        let _ = self.ears.sender.send(heard);
    }

    fn take_in(&mut self, run: RunId, datagram: &Datagram) {
        if let Err(why) = self.may_speak(run, datagram) {
            return self.scold(run, &why);
        }
        match notify::parse(&datagram.bytes) {
            Ok(said) => said.into_iter().for_each(|said| self.take_word(run, said)),
            Err(nonsense) => self.scold(run, &format!("a notification is ignored: {nonsense}")),
        }
    }

    /// Refuses what is too long, and whoever is not of the run.
    fn may_speak(&self, run: RunId, datagram: &Datagram) -> Result<(), String> {
        let sender = datagram.sender;
        let Some(hands) = self.runs.get(&run) else { return Err("it has ended".into()) };
        if datagram.is_cut {
            return Err(format!("a notification of more than {MAX_BYTES} bytes is ignored"));
        }
        let belongs = match sender.pid {
            0 => None,
            pid => kinship::belongs(pid, self.family(run, hands)),
        };
        match belongs {
            Some(true) => Ok(()),
            Some(false) => Err(format!(
                "a notification of pid {}, which is not one of its processes, is ignored",
                sender.pid
            )),
            // A short-lived helper such as systemd-notify; only whose it was can be told.
            None => {
                let program = self.config.programs.get(hands.process.program());
                let user = program.and_then(|program| program.spawn.user.as_ref());
                let uid = user.map_or_else(process::effective_uid, |user| user.uid);
                if sender.uid == uid || sender.uid == 0 {
                    return Ok(());
                }
                Err(format!("a notification of uid {} is ignored: it is of uid {uid}", sender.uid))
            }
        }
    }

    fn family(&self, run: RunId, hands: &Run) -> Family<'_> {
        Family { run, main_pid: hands.pid.unwrap_or(u32::MAX), instance: &self.instance }
    }

    fn take_word(&mut self, run: RunId, said: Said) {
        let word = match said {
            Said::Ready => Word::Ready,
            Said::MainPid(pid) => return self.on_main_pid(run, pid),
            Said::Status(text) => Word::Status(text),
            Said::Extend(time) => {
                self.note_more_time(run, time);
                Word::Extend(time)
            }
            Said::Alive => {
                self.note_beat(run);
                Word::Alive
            }
            Said::Hung => Word::Hung,
            Said::Watchdog(time) => Word::Watchdog(time),
        };
        self.tell(Event::Told { run, word });
    }

    /// What was started stays what is supervised; another main process is at most noted.
    fn on_main_pid(&mut self, run: RunId, pid: u32) {
        let Some(hands) = self.runs.get(&run) else { return };
        let Some(main) = hands.pid.filter(|main| *main != pid) else { return };
        if kinship::belongs(pid, self.family(run, hands)) == Some(true) {
            info!(process = %hands.process, pid, "calls another process its main one; pid {main} stays it");
        } else {
            let why = format!("MAINPID={pid} is refused: that is not one of its processes");
            self.scold(run, &why);
        }
    }

    /// Says once for each run what is wrong with what it says.
    fn scold(&mut self, run: RunId, why: &str) {
        if let Some(hands) = self.runs.get(&run)
            && self.ears.scolded.insert(run)
        {
            warn!(process = %hands.process, %run, "{why}");
        }
    }

    /// Looks for the line that says that the run is ready, and leaves it where it is.
    fn hear_line(&mut self, run: RunId) {
        let Some(hands) = self.runs.get(&run) else { return };
        let Some(pipe) = hands.extra(Extra::Ready) else { return };
        let awaited = self.core.unready(&hands.process).is_some_and(|(ours, _)| ours == run);
        if !awaited {
            // So that whoever goes on writing is not held up.
            let _ = drain(pipe);
            return;
        }
        let mut bytes = Vec::new();
        let looked = Peek::new().and_then(|mut peek| peek.look(pipe, &mut bytes));
        if let Err(error) = looked {
            return warn!(%run, %error, "cannot read whether a run is ready");
        }
        if bytes.contains(&b'\n') {
            return self.tell(Event::Ready { run });
        }
        let is_closed = is_hung_up(pipe);
        if bytes.len() >= crate::os::splice::PEEK_BYTES {
            let _ = drain(pipe);
        }
        if is_closed {
            let text = "it was closed without one".to_owned();
            self.tell(Event::Told { run, word: Word::Look(text) });
        }
    }
}

/// Throws away what is in a pipe.
fn drain(pipe: BorrowedFd<'_>) -> io::Result<()> {
    let mut file = std::fs::File::from(pipe.try_clone_to_owned()?);
    let mut buffer = [0; 4096];
    // At most what a pipe holds; more is told by another edge.
    for _ in 0..16 {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns whether nobody can write to a pipe any more.
fn is_hung_up(pipe: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(pipe, PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}
