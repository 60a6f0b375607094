//! Users and groups, looked up once each at load.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::diagnostic::{nearest, quote};
use super::model::{Identity, Principals};
use super::read::Context;
use super::tree::{Node, Table};

/// What was found so far; a thousand programs of one user cost one look-up.
#[derive(Default)]
pub(super) struct Accounts {
    users: RefCell<BTreeMap<String, Result<Option<Found>, String>>>,
    groups: RefCell<BTreeMap<String, Result<Option<u32>, String>>>,
}

#[derive(Clone)]
struct Found {
    name: String,
    uid: u32,
    /// `None` for a number without an account.
    gid: Option<u32>,
    groups: Vec<u32>,
    home: PathBuf,
    shell: PathBuf,
}

fn look_up_user(text: &str) -> Result<Option<Found>, String> {
    let number = text.parse::<u32>().ok();
    let user = match number {
        Some(uid) => User::from_uid(Uid::from_raw(uid)),
        None => User::from_name(text),
    };
    match (user, number) {
        (Ok(Some(user)), _) => {
            let name = CString::new(user.name.clone()).map_err(|error| error.to_string())?;
            let groups = getgrouplist(&name, user.gid).map_err(|error| error.to_string())?;
            Ok(Some(Found {
                uid: user.uid.as_raw(),
                gid: Some(user.gid.as_raw()),
                groups: groups.into_iter().map(Gid::as_raw).collect(),
                home: user.dir,
                shell: user.shell,
                name: user.name,
            }))
        }
        (Ok(None), Some(uid)) => Ok(Some(Found {
            name: uid.to_string(),
            uid,
            gid: None,
            groups: Vec::new(),
            home: "/".into(),
            shell: "/bin/sh".into(),
        })),
        (Ok(None), None) => Ok(None),
        (Err(error), _) => Err(error.desc().to_owned()),
    }
}

fn look_up_group(text: &str) -> Result<Option<u32>, String> {
    if let Ok(gid) = text.parse() {
        return Ok(Some(gid));
    }
    match Group::from_name(text) {
        Ok(group) => Ok(group.map(|group| group.gid.as_raw())),
        Err(error) => Err(error.desc().to_owned()),
    }
}

/// Returns a suggestion from the names of a local account file.
fn suggestion(name: &str, file: &str, what: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let names = text.lines().filter_map(|line| line.split(':').next());
    match nearest(name, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("create the {what}, or name one that exists"),
    }
}

/// Reads a name, or a number written with or without quotes.
fn account_text(cx: &Context<'_>, node: &Node<'_>) -> Option<String> {
    let text = if node.is_integer() {
        cx.integer(node, 0..=i64::from(u32::MAX - 1))?.to_string()
    } else {
        cx.string(node)?
    };
    if text.is_empty() { cx.bad(node, "may not be empty") } else { Some(text) }
}

fn user(cx: &Context<'_>, node: &Node<'_>) -> Option<Found> {
    let text = account_text(cx, node)?;
    let found = cx
        .accounts
        .users
        .borrow_mut()
        .entry(text.clone())
        .or_insert_with(|| look_up_user(&text))
        .clone();
    match found {
        Ok(Some(user)) => return Some(user),
        Ok(None) => {
            let message = format!("there is no user {}", quote(&text));
            cx.error(
                &node.place(),
                "unknown-user",
                message,
                &suggestion(&text, "/etc/passwd", "user"),
            );
        }
        Err(error) => {
            let message = format!("cannot look up user {}: {error}", quote(&text));
            cx.error(&node.place(), "unknown-user", message, "use the number of the user");
        }
    }
    None
}

fn group(cx: &Context<'_>, node: &Node<'_>) -> Option<u32> {
    let text = account_text(cx, node)?;
    let found = cx
        .accounts
        .groups
        .borrow_mut()
        .entry(text.clone())
        .or_insert_with(|| look_up_group(&text))
        .clone();
    match found {
        Ok(Some(gid)) => return Some(gid),
        Ok(None) => {
            let message = format!("there is no group {}", quote(&text));
            cx.error(
                &node.place(),
                "unknown-group",
                message,
                &suggestion(&text, "/etc/group", "group"),
            );
        }
        Err(error) => {
            let message = format!("cannot look up group {}: {error}", quote(&text));
            cx.error(&node.place(), "unknown-group", message, "use the number of the group");
        }
    }
    None
}

/// Reads `user` and `group` of a program.
///
/// `None` runs it as the daemon's own user, also when that user is named by a daemon that could
/// not become another.
pub(super) fn identity(cx: &Context<'_>, table: &Table<'_>) -> Option<Identity> {
    let user_node = table.get(cx, "user");
    let group_node = table.get(cx, "group");
    let named = user_node.as_ref().map(|node| user(cx, node));
    let gid = group_node.as_ref().map(|node| group(cx, node));
    let base = match named {
        Some(found) => found?,
        None if group_node.is_none() => return None,
        None => look_up_user(&cx.uid.to_string()).ok()??,
    };
    if cx.uid != 0 {
        if let Some(node) = user_node.as_ref().filter(|_| base.uid != cx.uid) {
            let message =
                format!("cannot run as user {}: the daemon is not root", quote(&base.name));
            let help = "run mendd as root, or remove `user`";
            cx.error(&node.place(), "not-root", message, help);
        }
        if let (Some(node), Some(Some(gid))) = (&group_node, gid)
            && base.gid != Some(gid)
        {
            let message = format!("cannot run as group {gid}: the daemon is not root");
            let help = "run mendd as root, or remove `group`";
            cx.error(&node.place(), "not-root", message, help);
        }
        return None;
    }
    let gid = match gid {
        Some(gid) => gid?,
        None => match base.gid {
            Some(gid) => gid,
            None => {
                let message =
                    format!("user {} has no account, so its group is not known", base.uid);
                let place = user_node.as_ref()?.place();
                cx.error(&place, "unknown-group", message, "name a `group` too");
                return None;
            }
        },
    };
    let mut groups = base.groups;
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    Some(Identity {
        user: base.name,
        uid: base.uid,
        gid,
        groups,
        home: base.home,
        shell: base.shell,
    })
}

/// Reads one level of `[supervisor.access]`.
pub(super) fn principals(cx: &Context<'_>, table: &Table<'_>) -> Principals {
    let read = |key: &str, look_up: &dyn Fn(&Node<'_>) -> Option<u32>| -> Vec<u32> {
        let items = table.get(cx, key).and_then(|node| cx.list(&node)).unwrap_or_default();
        items.iter().filter_map(look_up).collect()
    };
    Principals {
        uids: read("users", &|node| user(cx, node).map(|user| user.uid)),
        gids: read("groups", &|node| group(cx, node)),
    }
}
