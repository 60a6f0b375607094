//! The daemon becomes another version of itself while its programs run on.
//!
//! The new executable is asked who it is and whether it accepts the configuration, away from the
//! loop. Then the keeper is asked to become it and this brain withdraws ([`super::standby`]), which
//! to the programs is a crash of the brain and loses nothing. What came of it is told to the brain that serves afterwards: the new one,
//! or one of this executable when the keeper had to go back.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tracing::{error, info};

use super::core_loop::Engine;
use super::{HappeningKind, Refusal, UpgradeBegun};
use crate::core::Actor;
use crate::keeper::wire::{MAX_TEXT_BYTES, ToKeeper, UpgradeFailure};
use crate::os::clock;

/// How long the new brain may take to serve, unless the request says otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the new executable may take for one answer about itself.
const CHECK_PATIENCE: Duration = Duration::from_secs(10);

/// Where the request for an upgrade gets its answer.
pub(super) type Reply = oneshot::Sender<Result<UpgradeBegun, Refusal>>;

/// What an upgrade should go to.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// `None`: the file that this daemon was started from.
    pub(super) binary: Option<PathBuf>,
    pub(super) patience: Option<Duration>,
}

/// What the new executable said about itself.
#[derive(Debug)]
pub(super) struct Checked {
    by: Actor,
    patience: Duration,
    result: Result<(PathBuf, String), Refusal>,
}

/// How far an upgrade is, from this brain's point of view.
#[derive(Debug)]
pub(super) struct Upgrading {
    checks: UnboundedSender<Checked>,
    under_way: bool,
    reply: Option<Reply>,
    /// What the keeper was asked for.
    begun: Option<UpgradeBegun>,
    leaving: bool,
}

impl Upgrading {
    pub(super) fn new() -> (Self, UnboundedReceiver<Checked>) {
        let (checks, receiver) = unbounded_channel();
        let none = Self { checks, under_way: false, reply: None, begun: None, leaving: false };
        (none, receiver)
    }

    /// The keeper waits for the withdrawal of this brain.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    fn answer(&mut self, result: Result<UpgradeBegun, Refusal>) {
        self.under_way = false;
        match (self.reply.take(), result) {
            (Some(reply), result) => {
                // Whoever asked may have gone; the upgrade goes on.
                let _ = reply.send(result);
            }
            (None, Err(refusal)) => error!("no upgrade: {refusal}"),
            (None, Ok(_)) => {}
        }
    }
}

impl Engine {
    /// Begins to check the executable; the switch follows when it is good.
    pub(super) fn begin_upgrade(&mut self, by: Actor, wanted: Wanted, reply: Option<Reply>) {
        let refusal = if self.ending.is_under_way() {
            Some(Refusal::ShuttingDown)
        } else if self.upgrading.under_way {
            Some(Refusal::Invalid("another upgrade is under way".into()))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            match reply {
                Some(reply) => drop(reply.send(Err(refusal))),
                None => error!("no upgrade: {refusal}"),
            }
            return;
        }
        self.upgrading.under_way = true;
        self.upgrading.reply = reply;
        let checks = self.upgrading.checks.clone();
        let config = self.config_path.clone();
        let patience = wanted.patience.unwrap_or(PATIENCE);
        tokio::task::spawn_blocking(move || {
            let result = wanted.binary.map_or_else(own_executable, Ok).and_then(|binary| {
                let version = check(&binary, &config)?;
                Ok((binary, version))
            });
            // A loop that has ended needs no answer.
            let _ = checks.send(Checked { by, patience, result });
        });
    }

    /// Asks the keeper for the switch when the new executable is good.
    pub(super) fn on_checked(&mut self, checked: Checked) {
        let Checked { by, patience, result } = checked;
        let result = match result {
            Ok(_) if self.ending.is_under_way() => Err(Refusal::ShuttingDown),
            result => result,
        };
        let said = result.as_ref().map_or_else(
            |_| "upgrade".to_owned(),
            |(binary, version)| format!("upgrade to {version} ({})", binary.display()),
        );
        self.audit(&by, said, result.as_ref().err());
        let (binary, version) = match result {
            Ok(good) => good,
            Err(refusal) => return self.upgrading.answer(Err(refusal)),
        };
        info!(binary = %binary.display(), "upgrading to {version}");
        let before = env!("CARGO_PKG_VERSION");
        let event = self.happened(HappeningKind::Daemon {
            what: "upgrading".into(),
            detail: format!("from {before} to {version} ({})", binary.display()),
        });
        let path = binary.as_os_str().as_bytes();
        match self.keeper.send(&ToKeeper::Upgrade { path, patience }, &[]) {
            Ok(()) => self.upgrading.begun = Some(UpgradeBegun { version, event }),
            Err(error) => {
                let text = format!("the keeper does not listen: {error}");
                self.upgrading.answer(Err(Refusal::Failed(text)));
            }
        }
    }

    /// The keeper waits for the withdrawal of this brain: the loop ends after this message.
    pub(super) fn leave_for_upgrade(&mut self) {
        if let Some(begun) = self.upgrading.begun.take() {
            self.upgrading.answer(Ok(begun));
        }
        self.upgrading.leaving = true;
    }

    /// This brain is the one that an upgrade was for.
    pub(super) fn on_upgraded(&mut self) {
        let version = env!("CARGO_PKG_VERSION");
        info!("upgraded to {version}");
        self.note_trouble("upgrade", None);
        self.happened(HappeningKind::Daemon {
            what: "upgraded".into(),
            detail: format!("this is {version}"),
        });
    }

    /// The keeper has gone back to this executable, or never left it.
    pub(super) fn on_upgrade_failed(&mut self, why: UpgradeFailure) {
        let version = env!("CARGO_PKG_VERSION");
        let text = format!("the upgrade was rolled back to {version}: {why}");
        self.happened(HappeningKind::Daemon {
            what: "upgrade-failed".into(),
            detail: text.clone(),
        });
        self.note_trouble("upgrade", Some(text.clone()));
        self.upgrading.answer(Err(Refusal::Failed(text)));
    }
}

/// Returns the path that this daemon was started from, where a package manager puts the new one.
fn own_executable() -> Result<PathBuf, Refusal> {
    let link = std::fs::read_link("/proc/self/exe")
        .map_err(|error| Refusal::Failed(format!("cannot tell the own executable: {error}")))?;
    let bytes = link.as_os_str().as_bytes();
    // The kernel marks a file that was replaced by a rename.
    let path = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

/// Asks the executable who it is, and whether it accepts the configuration; returns its version.
fn check(binary: &Path, config: &Path) -> Result<String, Refusal> {
    let shown = binary.display();
    if !binary.is_absolute() || binary.as_os_str().len() >= MAX_TEXT_BYTES {
        return Err(Refusal::Invalid(format!("`{shown}` is no absolute path")));
    }
    let asked = Command::new(binary).arg("--version").ask(binary)?;
    let Some(version) = asked.out.trim().strip_prefix("mendd ").filter(|_| asked.good) else {
        let said = asked.out.lines().next().unwrap_or_default();
        return Err(Refusal::Invalid(format!(
            "`{shown}` is not a mendd: to `--version` it said `{said}`"
        )));
    };
    let asked = Command::new(binary).arg("--check").arg("--config").arg(config).ask(binary)?;
    if !asked.good {
        return Err(Refusal::BadConfiguration { rendered: asked.err, mistakes: 1 });
    }
    Ok(version.to_owned())
}

/// What a command said, at most the first 64 KiB of each stream.
struct Asked {
    good: bool,
    out: String,
    err: String,
}

trait Ask {
    fn ask(&mut self, binary: &Path) -> Result<Asked, Refusal>;
}

impl Ask for Command {
    /// Runs the command to its end; one that takes too long is killed.
    fn ask(&mut self, binary: &Path) -> Result<Asked, Refusal> {
        let invalid = |error: std::io::Error| {
            Refusal::Invalid(format!("cannot run `{}`: {error}", binary.display()))
        };
        // Files, not pipes: nothing that it leaves behind can keep us reading.
        let file = || memfd_create(c"mend-check", MFdFlags::MFD_CLOEXEC).map(File::from);
        let (out, err) =
            (file().map_err(|e| invalid(e.into()))?, file().map_err(|e| invalid(e.into()))?);
        let mut child = self
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_err(invalid)?)
            .stderr(err.try_clone().map_err(invalid)?)
            .spawn()
            .map_err(invalid)?;
        let deadline = clock::now() + CHECK_PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(invalid)? {
                break status;
            }
            if clock::now() >= deadline {
                let _ = child.kill();
                let _ = child.wait();
                let text =
                    format!("`{}` did not answer within {CHECK_PATIENCE:?}", binary.display());
                return Err(Refusal::Invalid(text));
            }
            // Short-lived, and waited for on a thread of its own.
            std::thread::sleep(Duration::from_millis(2));
        };
        Ok(Asked { good: status.success(), out: text_of(out), err: text_of(err) })
    }
}

fn text_of(mut file: File) -> String {
    let mut bytes = Vec::new();
    // Our own memory: cannot fail.
    let _ = file.rewind().and_then(|()| file.take(64 << 10).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
