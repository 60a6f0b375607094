//! The checks as they take effect, those included that nobody has written.

use std::collections::BTreeMap;

use super::checks::{self, Listed};
use super::keys::Section;
use super::look::DeclaredCheck;
use super::model_check::CheckKind;
use super::read::Place;
use super::show::{Origin, Shown, View, quoted};
use super::tree::{Layer, Table};
use crate::name::{CheckName, ProgramName};

/// Returns whether a key belongs to a check that is there by default: nobody has written its kind.
pub(super) fn is_builtin(one: &Shown, shown: &[Shown]) -> bool {
    let is_check = one.table.contains('/') || one.table.starts_with("check.");
    let is_kind = |key: &str| CheckKind::ALL.iter().any(|kind| kind.word() == key);
    let mut kinds = shown.iter().filter(|other| other.table == one.table && is_kind(&other.key));
    is_check && kinds.any(|kind| matches!(kind.origin, Origin::Default(_)))
}

impl View<'_, '_> {
    pub(super) fn checks_of(
        &mut self,
        name: &ProgramName,
        table: &Table<'_>,
        defaults: &[Layer<'_>],
    ) {
        let config = self.config;
        let Some(program) = config.programs.get(name) else { return };
        let listed = checks::listed(self.cx, table, defaults);
        for declared in &program.checks {
            let found = listed.iter().find(|listed| listed.name == declared.check.name);
            let header = format!("program.{name}/{}", declared.check.name);
            let value = Some(quoted(declared.check.name.as_str()));
            let origin = self.origin_of("name", found, "the kind");
            let key = "name".to_owned();
            self.shown.push(Shown { table: header.clone(), key, value, origin, hidden: false });
            self.check(&header, declared, found);
        }
    }

    pub(super) fn checks_of_host(
        &mut self,
        tables: &BTreeMap<CheckName, (Place, Table<'_>)>,
        defaults: &[Layer<'_>],
    ) {
        let config = self.config;
        for declared in &config.checks {
            let name = &declared.check.name;
            let found = tables
                .get(name)
                .map(|(place, own)| checks::host_listed(name, place, own, defaults));
            self.check(&format!("check.{name}"), declared, found.as_ref());
        }
    }

    /// Shows a check as it was read, `found` where it is written.
    fn check(&mut self, header: &str, declared: &DeclaredCheck, found: Option<&Listed<'_>>) {
        let all = checks::written(declared, true);
        let shown = if self.secrets { all.clone() } else { checks::written(declared, false) };
        for ((key, whole), (_, value)) in all.into_iter().zip(shown) {
            let default = super::keys::find(Section::Check, key).map_or("", |key| key.default);
            let origin = self.origin_of(key, found, default);
            let hidden = value != whole;
            let (table, key, value) = (header.to_owned(), key.to_owned(), Some(value));
            self.shown.push(Shown { table, key, value, origin, hidden });
        }
    }

    fn origin_of(&self, key: &str, found: Option<&Listed<'_>>, default: &str) -> Origin {
        let written = found.and_then(|listed| {
            let own = self.find(&listed.own, key).map(|found| (found, None));
            let above = || self.find(&listed.whole, key).map(|f| (f, Some("[defaults.check]")));
            let (found, above) = own.or_else(above)?;
            let above = above.or(listed.is_inherited.then_some("[defaults.program]"));
            Some(self.origin(&found.node, above))
        });
        written.unwrap_or_else(|| Origin::Default(default.to_owned()))
    }
}
