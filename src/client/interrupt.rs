//! Ctrl-C ends the view or the waiting, never what the daemon does.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::exit::Exit;

/// Where interrupts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupts {
    /// SIGINT and SIGTERM of this process, from the first [`Interrupts::listen`] on.
    Signals,
    Never,
}

/// Waits for an interrupt.
#[derive(Debug)]
pub struct Interrupt {
    receiver: Option<UnboundedReceiver<()>>,
}

impl Interrupts {
    /// Starts to listen; a second interrupt ends the process at once.
    pub fn listen(self) -> Interrupt {
        match self {
            Self::Never => Interrupt { receiver: None },
            Self::Signals => {
                let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else {
                    return Interrupt { receiver: None };
                };
                let (sender, receiver) = unbounded_channel();
                let watcher = std::thread::Builder::new().name("interrupt".to_owned());
                let spawned = watcher.spawn(move || {
                    let mut signals = signals.forever();
                    signals.next();
                    let _nobody_waits = sender.send(());
                    signals.next();
                    std::process::exit(i32::from(Exit::Interrupted.code()));
                });
                Interrupt { receiver: spawned.is_ok().then_some(receiver) }
            }
        }
    }
}

impl Interrupt {
    /// Returns when the user wants to stop; may be called again after being cancelled.
    pub async fn wait(&mut self) {
        match &mut self.receiver {
            Some(receiver) => {
                if receiver.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
            }
            None => std::future::pending().await,
        }
    }
}
