//! Control groups, on the real file system where there is one.

use std::process::{Command, Stdio};

use super::*;

/// A tree of our own for one test, `None` (with a message) where there are no cgroups.
fn cgroups(test: &str) -> Option<Cgroups> {
    match Cgroups::probe(&format!("test-{test}-{}", std::process::id())) {
        Ok(cgroups) => Some(cgroups),
        Err(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}

fn wait_empty(leaf: &Leaf) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while leaf.populated().unwrap() {
        assert!(Instant::now() < deadline, "still alive: {:?}", leaf.procs());
        thread::sleep(Duration::from_millis(2));
    }
}

/// A shell in the leaf with two escaped children.
fn crowd(leaf: &Leaf) -> std::process::Child {
    let script = format!(
        "echo $$ > {}/cgroup.procs; setsid sleep 600 & setsid sleep 600 & echo in; wait",
        leaf.path().display()
    );
    let mut shell =
        Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 3];
    shell.stdout.take().unwrap().read_exact(&mut said).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while leaf.procs().len() < 3 {
        assert!(Instant::now() < deadline, "only {:?} came", leaf.procs());
        thread::sleep(Duration::from_millis(2));
    }
    shell
}

#[test]
fn a_hybrid_mount_and_our_own_group_are_found() {
    let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                  32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:3 - cgroup2 cgroup2 rw\n";
    let found = own_group(mounts, "4:memory:/x\n0::/system.slice/mendd.service\n").unwrap();
    assert_eq!(found, Path::new("/sys/fs/cgroup/unified/system.slice/mendd.service"));
}

#[test]
fn a_missing_or_read_only_tree_is_named_as_the_reason() {
    assert!(matches!(own_group("", "0::/\n"), Err(Unavailable::NotMounted)));
    let read_only = "41 31 0:38 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n";
    assert!(matches!(own_group(read_only, "0::/\n"), Err(Unavailable::ReadOnly(_))));
    let elsewhere = "41 31 0:38 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
    assert!(matches!(own_group(elsewhere, "0::/y\n"), Err(Unavailable::NoOwnGroup)));
}

#[test]
fn a_group_that_cannot_be_made_is_unavailable() {
    let result = Cgroups::below(Path::new("/proc/self/nowhere"), "mend-x");
    assert!(matches!(result, Err(Unavailable::Failed { .. })), "{result:?}");
}

#[test]
fn a_process_name_with_a_colon_becomes_one_file_name() {
    assert_eq!(escape("web:0.17"), "web%3a0.17");
    assert_eq!(escape("../x"), "%2e.%2fx");
}

#[test]
fn killing_a_leaf_takes_the_escapees_too() {
    let Some(cgroups) = cgroups("kill") else { return };
    let leaf = cgroups.leaf("web:0.1").unwrap();
    let mut shell = crowd(&leaf);
    assert!(leaf.populated().unwrap());
    assert_eq!(cgroups.existing_leaves(), [leaf.path()]);
    leaf.kill().unwrap();
    wait_empty(&leaf);
    shell.wait().unwrap();
    leaf.remove().unwrap();
    leaf.remove().unwrap();
    assert!(!leaf.populated().unwrap());
    remove_tree(cgroups.base()).unwrap();
}

#[test]
fn without_cgroup_kill_members_are_frozen_and_killed_one_by_one() {
    let Some(cgroups) = cgroups("freeze") else { return };
    let leaf = cgroups.leaf("old").unwrap();
    let mut shell = crowd(&leaf);
    leaf.kill_frozen().unwrap();
    wait_empty(&leaf);
    shell.wait().unwrap();
    leaf.remove().unwrap();
    remove_tree(cgroups.base()).unwrap();
}

#[test]
fn a_leaf_with_somebody_in_it_is_not_removed() {
    let Some(cgroups) = cgroups("busy") else { return };
    let leaf = cgroups.leaf("busy").unwrap();
    let mut shell = crowd(&leaf);
    assert_eq!(leaf.remove().unwrap_err().raw_os_error(), Some(libc::EBUSY));
    leaf.kill().unwrap();
    wait_empty(&leaf);
    shell.wait().unwrap();
    leaf.remove().unwrap();
    remove_tree(cgroups.base()).unwrap();
}

#[test]
fn a_limit_without_its_controller_is_a_warning() {
    let Some(cgroups) = cgroups("limits") else { return };
    let leaf = cgroups.leaf("limited").unwrap();
    let limits =
        Limits { memory_bytes: Some(64 << 20), cpu_percent: Some(50), ..Limits::default() };
    let missing =
        ["memory", "cpu"].iter().filter(|name| !cgroups.controllers().iter().any(|c| c == *name));
    assert_eq!(leaf.set_limits(&limits).len(), missing.count());
    leaf.remove().unwrap();
    remove_tree(cgroups.base()).unwrap();
}
