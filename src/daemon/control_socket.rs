//! Keeps the control socket reachable: one whose file was deleted or replaced is made again.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::api::{self, SharedAccess, SocketNode};

/// How often a control socket that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The control socket's file, as long as the brain serves.
pub(super) struct ControlSocket {
    path: PathBuf,
    access: SharedAccess,
    /// What the path must lead to; `None` while there is no listener.
    node: Option<SocketNode>,
    /// Asks for a look at the file.
    looks: UnboundedSender<()>,
    fresh: UnboundedSender<UnixListener>,
    watcher: Option<RecommendedWatcher>,
}

impl ControlSocket {
    /// `is_bound` says that the file is there; each listener that is made later goes to `fresh`.
    pub(super) fn new(
        path: PathBuf,
        access: SharedAccess,
        is_bound: bool,
        looks: UnboundedSender<()>,
        fresh: UnboundedSender<UnixListener>,
    ) -> Self {
        let mut socket = Self { path, access, node: None, looks, fresh, watcher: None };
        if is_bound {
            socket.note_bound();
        }
        socket
    }

    /// Looks whenever it is asked to, and tries again while there is no socket.
    pub(super) async fn keep(mut self, mut asked: UnboundedReceiver<()>, stop: CancellationToken) {
        loop {
            let is_lost = self.node.is_none();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(()) = asked.recv() => {}
                () = tokio::time::sleep(RETRY), if is_lost => {}
            }
            self.look();
        }
    }

    fn look(&mut self) {
        if self.node.is_some() && SocketNode::at(&self.path) == self.node {
            return;
        }
        match api::bind(&self.path, &self.access.get()) {
            Ok(listener) => {
                warn!(
                    "the control socket `{}` was gone and is made again; if its directory was \
                     deleted, restart the daemon when it suits: what it kept there is lost, and \
                     programs that run would not be found after a crash",
                    self.path.display()
                );
                self.note_bound();
                // A server that has ended needs none.
                let _ = self.fresh.send(listener);
            }
            Err(error) => {
                if self.node.take().is_some() {
                    warn!(%error, "the control socket is gone and cannot be made again yet");
                }
            }
        }
    }

    /// Remembers the file and watches it alone, not its busy directory: deleting it changes its
    /// number of links.
    fn note_bound(&mut self) {
        self.node = SocketNode::at(&self.path);
        let looks = self.looks.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
                let _ = looks.send(());
            }
        });
        let armed = watcher.and_then(|mut watcher| {
            watcher.watch(&self.path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        // Without it, SIGHUP and reloads still look.
        self.watcher = armed.inspect_err(|error| warn!(%error, "the socket is not watched")).ok();
    }
}
