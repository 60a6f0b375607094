//! The only system calls and the only `unsafe` of the project.

pub mod pidfd;

pub mod pin;

pub mod proc;

pub mod cgroup;

pub mod claim;

pub mod tree;

pub mod explain;

pub mod clock;

pub mod limits;

pub mod memory;

pub mod usage;

pub mod group_usage;

pub mod pressure;

pub mod disk;

pub mod sockets;

pub mod kmsg;

pub mod process;

pub mod inotify;

pub mod links;

pub mod readable;

pub mod notify_socket;

pub mod kinship;

pub mod seqpacket;

pub mod spawn;

pub mod splice;

pub mod thread;

pub mod peer;

pub mod sigpipe;
