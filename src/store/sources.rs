//! The written form of configuration texts, and of what is active: the texts that count, and
//! those of an apply that is under way, with how far it has come.

use serde::{Deserialize, Serialize};

use super::applying;
use crate::config::Source;
use crate::core::Progress;
use crate::name::{ProcessName, RunId};

/// What a brain that comes back goes on from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Active {
    /// The configuration that counts; during an apply the one before.
    pub sources: Vec<Source>,
    /// The first run of each process that is spawned as it is declared now, as far as an older
    /// run may be left.
    pub replaced: std::collections::BTreeMap<ProcessName, RunId>,
    /// The texts that are being applied, and how far that has come.
    pub apply: Option<(Vec<Source>, Progress)>,
}

/// Members after `checksum` are unknown to version 0.1, which then goes on with `files`.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    files: Vec<WrittenFile>,
    /// CRC-32 of all paths and texts.
    checksum: u32,
    /// JSON of [`More`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    more: Option<String>,
    /// CRC-32 of `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    more_checksum: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct WrittenFile {
    path: std::path::PathBuf,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct More {
    replaced: Vec<(String, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    apply: Option<(Vec<WrittenFile>, applying::Written)>,
}

const VERSION: u32 = 1;

fn checksum(files: &[WrittenFile]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for file in files {
        hasher.update(file.path.as_os_str().as_encoded_bytes());
        hasher.update(file.text.as_bytes());
    }
    hasher.finalize()
}

/// Returns a number by which different texts are told apart fast; equal numbers mean nothing.
pub fn fingerprint(sources: &[Source]) -> u32 {
    checksum(&files(sources))
}

fn files(sources: &[Source]) -> Vec<WrittenFile> {
    let file =
        |source: &Source| WrittenFile { path: source.path.clone(), text: source.text.clone() };
    sources.iter().map(file).collect()
}

fn sources(files: Vec<WrittenFile>) -> Vec<Source> {
    files.into_iter().map(|file| Source { path: file.path, text: file.text }).collect()
}

/// Writes texts down.
pub fn encode(sources: &[Source]) -> Vec<u8> {
    let files = files(sources);
    let checksum = checksum(&files);
    let written = Written { version: VERSION, checksum, files, more: None, more_checksum: None };
    // Paths that are not UTF-8 cannot be written as JSON; such a configuration is loaded anew.
    serde_json::to_vec(&written).unwrap_or_default()
}

/// Writes down what is active.
pub fn encode_active(active: &Active) -> Vec<u8> {
    let files = files(&active.sources);
    let more = More {
        replaced: active.replaced.iter().map(|(name, run)| (name.to_string(), run.0)).collect(),
        apply: active
            .apply
            .as_ref()
            .map(|(texts, progress)| (self::files(texts), applying::Written::from(progress))),
    };
    let more = serde_json::to_string(&more).ok();
    let written = Written {
        version: VERSION,
        checksum: checksum(&files),
        files,
        more_checksum: more.as_ref().map(|text| crc32fast::hash(text.as_bytes())),
        more,
    };
    serde_json::to_vec(&written).unwrap_or_default()
}

/// Reads texts, `None` when they are damaged or of another version.
pub fn decode(bytes: &[u8]) -> Option<Vec<Source>> {
    Some(decode_active(bytes)?.sources)
}

/// Reads what is active, `None` when it is damaged or of another version.
pub fn decode_active(bytes: &[u8]) -> Option<Active> {
    let written: Written = serde_json::from_slice(bytes).ok()?;
    if written.version != VERSION || written.checksum != checksum(&written.files) {
        return None;
    }
    let mut active = Active { sources: sources(written.files), ..Active::default() };
    let Some(more) = written.more else { return Some(active) };
    if written.more_checksum != Some(crc32fast::hash(more.as_bytes())) {
        return None;
    }
    let More { replaced, apply } = serde_json::from_str(&more).ok()?;
    for (name, run) in replaced {
        active.replaced.insert(name.parse().ok()?, RunId(run));
    }
    if let Some((files, progress)) = apply {
        active.apply = Some((sources(files), progress.try_into().ok()?));
    }
    Some(active)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_damage_is_noticed() {
        let texts = vec![Source { path: "/etc/a.toml".into(), text: "[program.x]\n".into() }];
        let bytes = encode(&texts);
        assert_eq!(decode(&bytes).unwrap(), texts);
        let damaged = String::from_utf8(bytes).unwrap().replace("program.x", "program.y");
        assert!(decode(damaged.as_bytes()).is_none());
        assert!(decode(b"{").is_none());
    }

    #[test]
    fn an_apply_comes_back_and_damage_in_it_is_noticed() {
        let text = |text: &str| vec![Source { path: "/etc/a.toml".into(), text: text.into() }];
        let active = Active {
            sources: text("old"),
            replaced: [("web:1".parse().unwrap(), RunId(7))].into(),
            apply: Some((text("new"), applying::tests::progress())),
        };
        let bytes = encode_active(&active);
        assert_eq!(decode_active(&bytes).unwrap(), active);
        let damaged = String::from_utf8(bytes).unwrap().replace("web:1", "web:2");
        assert_eq!(decode_active(damaged.as_bytes()), None);
    }

    #[test]
    fn what_version_0_1_wrote_still_loads() {
        let bytes = br#"{"version":1,"files":[{"path":"/e/m.toml","text":"x"}],"checksum":0}"#;
        let texts = vec![Source { path: "/e/m.toml".into(), text: "x".into() }];
        let text = String::from_utf8_lossy(bytes)
            .replace("\"checksum\":0", &format!("\"checksum\":{}", fingerprint(&texts)));
        assert_eq!(decode_active(text.as_bytes()).unwrap().sources, texts);
    }
}
