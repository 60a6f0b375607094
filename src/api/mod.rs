//! The control API: HTTP/1.1 over the Unix socket.
//!
//! [`view`] has every type that goes over the wire; the client reads the same types. The rules
//! here: the peer is who the kernel says it is, its role is judged anew for each request, no
//! number of clients can lock the operator out, and nothing in here decides about programs:
//! every request becomes one question to [`crate::engine::Handle`].

pub mod view;

mod routes;

mod access;
mod configuration;
mod endpoints;
mod input;
mod problem;
mod show;
mod times;

mod audit;
mod events;
mod generations;
mod healing;
mod history;
mod logs;
mod metrics;
mod openmetrics;
mod readiness;
mod statistics;

mod connections;
mod patience;
mod server;
mod socket;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod endpoints_tests;
#[cfg(test)]
mod healing_bench;
#[cfg(test)]
mod healing_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod metrics_tests;
#[cfg(test)]
mod openapi_tests;
#[cfg(test)]
mod server_tests;

pub use access::{Role, SharedAccess, admits_others};
pub use configuration::{config_view, shown_of};
pub use logs::{BoxFuture, LogChannel, LogLines, LogQuery, LogRecord, LogSource};
pub use problem::TYPE_PREFIX;
pub use server::{ApiSettings, Caps, serve};
pub use show::{act_view, event_view, process_view, reload_view, status_view};
pub use socket::{BindError, SocketNode, admit, bind};
