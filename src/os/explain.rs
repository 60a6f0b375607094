//! Why a program could not be brought to life, in a sentence with the way out.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::Spawn;
use crate::core::SpawnFailure;

/// The `PATH` that is searched when the environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How alike a name must be to be suggested, 0 to 1.
const NEAR: f64 = 0.8;

macro_rules! stages {
    ($($(#[$doc:meta])* $stage:ident = $number:literal, $text:literal;)*) => {
        /// The step of a spawn that failed; the numbers go over the wire between processes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Stage { $($(#[$doc])* $stage = $number,)* }

        impl Stage {
            /// Returns the stage with this number.
            pub fn from_raw(raw: u32) -> Option<Self> {
                match raw { $($number => Some(Self::$stage),)* _ => None }
            }

            /// What could not be done, to follow "cannot".
            fn what(self) -> &'static str {
                match self { $(Self::$stage => $text,)* }
            }
        }
    };
}

stages! {
    /// Before the process existed: memory, descriptors, `clone3` itself.
    Prepare = 0, "create the process";
    Cgroup = 1, "enter its control group";
    Session = 2, "start a session";
    Limits = 3, "set its resource limits";
    Nice = 4, "set its nice value";
    OomScore = 5, "set its OOM score";
    Groups = 6, "set its supplementary groups";
    Gid = 7, "change to its group";
    Uid = 8, "change to its user";
    Directory = 9, "enter its directory";
    Stdin = 10, "open its standard input";
    Output = 11, "open its output";
    NoNewPrivs = 12, "give up gaining privileges";
    Record = 13, "write its run record";
    Exec = 14, "execute it";
}

/// Explains the error number of a failed spawn; `program` is what was to be executed.
pub fn explain_exec(errno: i32, stage: Stage, program: &Path, spawn: &Spawn) -> SpawnFailure {
    let shown = program.display();
    let (reason, permanent) = match stage {
        Stage::Exec => exec_reason(errno, program, spawn),
        Stage::Directory => directory_reason(errno, spawn),
        Stage::Groups | Stage::Gid | Stage::Uid if errno == libc::EPERM => {
            let user = spawn.user.as_ref().map_or("its user", |identity| identity.user.as_str());
            (Some(format!("only root may start programs as `{user}`: run the daemon as root or remove `user`")), true)
        }
        Stage::Limits if errno == libc::EPERM => {
            (Some("a hard limit cannot be raised without CAP_SYS_RESOURCE: lower the value in `limits`".into()), true)
        }
        Stage::Nice if matches!(errno, libc::EPERM | libc::EACCES) => {
            (Some("a lower nice value needs CAP_SYS_NICE: remove `nice`".into()), true)
        }
        Stage::OomScore if matches!(errno, libc::EPERM | libc::EACCES) => {
            (Some("a lower score needs CAP_SYS_RESOURCE: raise `oom_score_adj`".into()), true)
        }
        Stage::Stdin if errno == libc::ENOENT => {
            (Some("the file of `stdin` does not exist: create it".into()), true)
        }
        Stage::Prepare | Stage::Cgroup | Stage::Session | Stage::Limits | Stage::Nice
        | Stage::OomScore | Stage::Groups | Stage::Gid | Stage::Uid | Stage::Stdin
        | Stage::Output | Stage::NoNewPrivs | Stage::Record => (None, false),
    };
    let reason = reason.or_else(|| shortage(errno, spawn)).map(|text| format!(": {text}"));
    let reason = reason.unwrap_or_default();
    let error = io::Error::from_raw_os_error(errno);
    SpawnFailure {
        message: format!("cannot {} (`{shown}`): {error}{reason}", stage.what()),
        transient: !permanent && is_transient(errno, stage),
    }
}

/// Running short passes; so does trouble before the program itself is touched.
fn is_transient(errno: i32, stage: Stage) -> bool {
    matches!(
        errno,
        libc::EAGAIN
            | libc::ENOMEM
            | libc::ENOSPC
            | libc::EDQUOT
            | libc::ETXTBSY
            | libc::EMFILE
            | libc::ENFILE
            | libc::EINTR
            | libc::EIO
            | libc::EBUSY
            | libc::ESTALE
    ) || matches!(stage, Stage::Cgroup | Stage::Output | Stage::Record | Stage::Prepare)
        && errno != libc::EINVAL
        && errno != libc::E2BIG
}

fn shortage(errno: i32, spawn: &Spawn) -> Option<String> {
    let text = match errno {
        libc::EAGAIN => match spawn.limits.nproc {
            Some(nproc) => format!(
                "its user has reached RLIMIT_NPROC ({nproc}) or the machine its limit of processes: raise `limits.nproc` or end some"
            ),
            None => {
                "the limit of processes (RLIMIT_NPROC, pids.max) is reached: end some or raise it"
                    .into()
            }
        },
        libc::ENOMEM => "the machine or the control group is out of memory".into(),
        libc::EMFILE | libc::ENFILE => "file descriptors have run out: raise `nofile`".into(),
        libc::ENOSPC | libc::EDQUOT => "the disk is full: free some space".into(),
        _ => return None,
    };
    Some(text)
}

fn exec_reason(errno: i32, program: &Path, spawn: &Spawn) -> (Option<String>, bool) {
    let reason = match errno {
        libc::ENOENT if program.exists() => missing_interpreter(program),
        libc::ENOENT => Some(not_found(program, spawn)),
        libc::ENOTDIR => Some("a part of its path is not a directory".into()),
        libc::EACCES => Some(no_access(program, spawn)),
        libc::ENOEXEC => Some(not_executable(program)),
        libc::ETXTBSY => {
            return (
                Some("the file is being written: it can run once the writer closes it".into()),
                false,
            );
        }
        libc::E2BIG => {
            Some("its arguments and environment together are too long: shorten them".into())
        }
        libc::EPERM => Some("a security policy or a setuid file system rule forbids it".into()),
        libc::ELOOP => Some("its path has too many symbolic links".into()),
        _ => return (None, false),
    };
    (reason, true)
}

fn directory_reason(errno: i32, spawn: &Spawn) -> (Option<String>, bool) {
    let Some(directory) = &spawn.directory else { return (None, false) };
    let shown = directory.display();
    let text = match errno {
        libc::ENOENT => format!("`{shown}` does not exist: create it or correct `directory`"),
        libc::ENOTDIR => format!("`{shown}` is not a directory: correct `directory`"),
        libc::EACCES => match blocked_parent(&directory.join("x"), spawn) {
            Some(part) => format!("`{}` may not be entered{}", part.display(), by_user(spawn)),
            None => format!("`{shown}` may not be entered{}", by_user(spawn)),
        },
        _ => return (None, false),
    };
    (Some(text), true)
}

fn by_user(spawn: &Spawn) -> String {
    spawn.user.as_ref().map(|user| format!(" by user `{}`", user.user)).unwrap_or_default()
}

/// The directories that a bare name is looked for in.
fn search_path(spawn: &Spawn) -> Vec<PathBuf> {
    let path = spawn
        .environment
        .get("PATH")
        .cloned()
        .or_else(|| std::env::var("PATH").ok().filter(|_| spawn.inherit_environment));
    std::env::split_paths(&path.unwrap_or_else(|| DEFAULT_PATH.to_owned())).collect()
}

fn not_found(program: &Path, spawn: &Spawn) -> String {
    let written = spawn.argv.first().map_or("", String::as_str);
    let bare = !written.is_empty() && !written.contains('/');
    let (wanted, places) = if bare {
        (written.to_owned(), search_path(spawn))
    } else {
        let name = program.file_name().map(|name| name.to_string_lossy().into_owned());
        (name.unwrap_or_default(), program.parent().map(Path::to_path_buf).into_iter().collect())
    };
    let way_out = match nearest(&wanted, &places) {
        Some(near) => format!("did you mean `{}`?", near.display()),
        None => "install it or correct `command`".to_owned(),
    };
    if !bare {
        return format!("the file does not exist; {way_out}");
    }
    // Last, because a table cuts a long line.
    let searched: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
    format!("no `{wanted}` in PATH; {way_out} (searched {})", searched.join(":"))
}

fn nearest(wanted: &str, places: &[PathBuf]) -> Option<PathBuf> {
    let entries = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let scored = entries.filter_map(|entry| {
        let score = strsim::jaro_winkler(wanted, entry.file_name().to_str()?);
        (score >= NEAR).then(|| (score, entry.path()))
    });
    let best = scored.max_by(|left, right| left.0.total_cmp(&right.0).then(right.1.cmp(&left.1)));
    best.map(|(_, path)| path).filter(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The file exists, so what is missing is what the kernel would have run it with.
fn missing_interpreter(program: &Path) -> Option<String> {
    let found = interpreter(program).ok().flatten()?;
    let shown = found.display();
    if shown.to_string().ends_with('\r') {
        return Some(
            "its first line ends with a carriage return: save it with Unix line ends".into(),
        );
    }
    Some(format!(
        "the file exists but its interpreter `{shown}` does not: install that or correct the file"
    ))
}

/// Returns the interpreter in the `#!` line or the ELF header, `None` when there is none.
///
/// # Errors
///
/// When the file cannot be read.
pub fn interpreter(program: &Path) -> io::Result<Option<PathBuf>> {
    let mut file = File::open(program)?;
    let mut head = Vec::new();
    (&mut file).take(4096).read_to_end(&mut head)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let words = line.split(|byte| matches!(byte, b' ' | b'\t'));
        let first = words.into_iter().find(|word| !word.is_empty());
        return Ok(first.map(|word| PathBuf::from(std::ffi::OsStr::from_bytes(word))));
    }
    Ok(elf_interpreter(&file, &head))
}

/// Reads `PT_INTERP` of a 64-bit little-endian ELF file.
fn elf_interpreter(file: &File, head: &[u8]) -> Option<PathBuf> {
    const PT_INTERP: u64 = 3;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |bytes: &[u8], at: usize, size: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(size)?)?;
        Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let (table, entry_size, entries) =
        (number(head, 32, 8)?, number(head, 54, 2)?, number(head, 56, 2)?);
    for index in 0..entries {
        let mut entry = [0; 56];
        file.read_exact_at(&mut entry, table.checked_add(index * entry_size)?).ok()?;
        if number(&entry, 0, 4)? == PT_INTERP {
            let length = usize::try_from(number(&entry, 32, 8)?.min(4096)).ok()?;
            let mut name = vec![0; length];
            file.read_exact_at(&mut name, number(&entry, 8, 8)?).ok()?;
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            return Some(PathBuf::from(std::ffi::OsStr::from_bytes(&name[..end])));
        }
    }
    None
}

fn no_access(program: &Path, spawn: &Spawn) -> String {
    let shown = program.display();
    if let Some(part) = blocked_parent(program, spawn) {
        let part = part.display();
        return format!("the directory `{part}` may not be searched{}", by_user(spawn));
    }
    let Ok(file) = fs::metadata(program) else { return "it may not be reached".into() };
    if file.is_dir() {
        return format!("`{shown}` is a directory: correct `command`");
    }
    if file.permissions().mode() & 0o111 == 0 {
        return format!("the file is not executable: `chmod +x {shown}`");
    }
    if !allowed(&file, spawn) {
        return format!("its mode does not allow it{}: `chmod a+rx {shown}`", by_user(spawn));
    }
    let noexec = nix::sys::statvfs::statvfs(program)
        .is_ok_and(|place| place.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC));
    if noexec {
        return "its file system is mounted noexec: move the file or remount".into();
    }
    match interpreter(program) {
        Ok(Some(found)) if found.exists() && !is_executable(&found) => {
            format!("its interpreter `{}` is not executable", found.display())
        }
        _ => "a security policy forbids it".into(),
    }
}

/// The topmost directory on the way to `path` that the program's user may not search.
fn blocked_parent(path: &Path, spawn: &Spawn) -> Option<PathBuf> {
    let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
    parents.reverse();
    let blocked = parents.into_iter().find(|part| {
        fs::metadata(part).is_ok_and(|place| place.is_dir() && !allowed(&place, spawn))
    });
    blocked.map(Path::to_path_buf)
}

/// Tells whether the mode bits let the program's user execute (or search) this file.
fn allowed(file: &fs::Metadata, spawn: &Spawn) -> bool {
    let (uid, gid, groups) = match &spawn.user {
        Some(user) => (user.uid, user.gid, user.groups.clone()),
        None => {
            let groups = nix::unistd::getgroups().unwrap_or_default();
            let groups = groups.into_iter().map(nix::unistd::Gid::as_raw).collect();
            (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw(), groups)
        }
    };
    let mode = file.permissions().mode();
    if uid == 0 {
        return file.is_dir() || mode & 0o111 != 0;
    }
    if file.uid() == uid {
        mode & 0o100 != 0
    } else if file.gid() == gid || groups.contains(&file.gid()) {
        mode & 0o010 != 0
    } else {
        mode & 0o001 != 0
    }
}

fn not_executable(program: &Path) -> String {
    let mut head = Vec::new();
    let read = File::open(program).and_then(|file| file.take(4).read_to_end(&mut head));
    if read.is_ok() && head.is_empty() {
        return "the file is empty".into();
    }
    if head.starts_with(b"\x7fELF") {
        return "it was built for another architecture".into();
    }
    "it has no `#!` line and is no executable format: add one, such as `#!/bin/sh`".into()
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
