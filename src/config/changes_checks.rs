//! What differs between the checks of two configurations; always in place.

use std::sync::Arc;

use super::changes::List;
use super::checks::written;
use super::look::DeclaredCheck;

/// Notes what differs. Checks that nobody has written follow from other keys, which are noted.
pub(super) fn compare_checks(
    list: &mut List,
    old: &[Arc<DeclaredCheck>],
    new: &[Arc<DeclaredCheck>],
) {
    let declared = |checks: &[Arc<DeclaredCheck>]| -> Vec<Arc<DeclaredCheck>> {
        checks.iter().filter(|check| !check.is_builtin).cloned().collect()
    };
    let (old, new) = (declared(old), declared(new));
    let find = |checks: &[Arc<DeclaredCheck>], one: &DeclaredCheck| {
        checks.iter().find(|check| check.check.name == one.check.name).cloned()
    };
    for before in &old {
        let key = format!("check.{}", before.check.name);
        match find(&new, before) {
            Some(after) if before == &after => {}
            Some(after) => compare(list, &key, before, &after),
            None => list.push(key, Some(before.look.to_string()), None),
        }
    }
    for after in new.iter().filter(|after| find(&old, after).is_none()) {
        let key = format!("check.{}", after.check.name);
        list.push(key, None, Some(after.look.to_string()));
    }
}

fn compare(list: &mut List, key: &str, before: &DeclaredCheck, after: &DeclaredCheck) {
    let (old, new) = (written(before, false), written(after, false));
    let value = |keys: &[(&'static str, String)], name: &str| {
        keys.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
    };
    let mut names: Vec<&'static str> = old.iter().chain(&new).map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    let known = list.len();
    for name in names {
        list.push(format!("{key}.{name}"), value(&old, name), value(&new, name));
    }
    if list.len() == known {
        let hidden = || Some("(hidden)".to_owned());
        list.push_hidden(format!("{key}.{}", after.look.kind().word()), hidden(), hidden());
    }
}
