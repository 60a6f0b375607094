//! The links that a path leads over, followed one by one as the kernel does (path_resolution(7)).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

/// As many links as the kernel follows before it answers `ELOOP`.
const MAX_LINKS: usize = 40;

/// Where an absolute path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The links on the way, each under the path that the links before it lead to.
    pub links: Vec<PathBuf>,
    /// The end of the way, which no link leads on from; it need not exist.
    pub end: PathBuf,
}

impl Way {
    /// Follows `path`. A loop ends at the link that is one too many.
    pub fn of(path: &Path) -> Self {
        let mut links = Vec::new();
        let mut end = PathBuf::from("/");
        let mut ahead: VecDeque<OsString> = names(path).collect();
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                end.pop();
                continue;
            }
            end.push(&name);
            let Ok(leads_to) = fs::read_link(&end) else { continue };
            if links.len() == MAX_LINKS {
                break;
            }
            links.push(end.clone());
            if leads_to.is_absolute() {
                end = PathBuf::from("/");
            } else {
                end.pop();
            }
            names(&leads_to).rev().for_each(|name| ahead.push_front(name));
        }
        Self { links, end }
    }
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Whether an entry of a directory is made up by the kernel for whoever looks (proc(5)), so that
/// its number and times say nothing.
pub fn is_in_procfs(entry: &Path) -> bool {
    let directory = entry.parent().unwrap_or(entry);
    statfs(directory).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_is_followed_link_by_link_to_what_it_means() {
        let dir = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(dir.path()).unwrap();
        let at = |name: &str| top.join(name);
        fs::create_dir_all(at("releases/1")).unwrap();
        fs::write(at("releases/1/app"), "").unwrap();
        symlink("releases/1", at("current")).unwrap();
        symlink("../current/app", at("releases/here")).unwrap();
        symlink(at("releases"), at("all")).unwrap();
        let way = Way::of(&at("all/../all/here"));
        let links = ["all", "all", "releases/here", "current"].map(at);
        assert_eq!(way, Way { links: links.to_vec(), end: at("releases/1/app") });
        assert_eq!(fs::canonicalize(at("all/../all/here")).unwrap(), way.end);
        let missing = Way::of(&at("current/x/y"));
        assert_eq!(missing.end, at("releases/1/x/y"));
        symlink("loop", at("loop")).unwrap();
        assert_eq!(Way::of(&at("loop")).links.len(), MAX_LINKS);
    }

    #[test]
    fn what_the_kernel_makes_up_is_told_from_files() {
        assert!(is_in_procfs(Path::new("/proc/self")));
        assert!(is_in_procfs(Path::new("/proc/self/mounts")));
        assert!(!is_in_procfs(Path::new("/etc/mtab")));
    }
}
