//! The written form of configuration texts.

use serde::{Deserialize, Serialize};

use crate::config::Source;

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    files: Vec<WrittenFile>,
    /// CRC-32 of all paths and texts.
    checksum: u32,
}

#[derive(Serialize, Deserialize)]
struct WrittenFile {
    path: std::path::PathBuf,
    text: String,
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

/// Writes texts down.
pub fn encode(sources: &[Source]) -> Vec<u8> {
    let files: Vec<_> = sources
        .iter()
        .map(|source| WrittenFile { path: source.path.clone(), text: source.text.clone() })
        .collect();
    let written = Written { version: VERSION, checksum: checksum(&files), files };
    // Paths that are not UTF-8 cannot be written as JSON; such a configuration is loaded anew.
    serde_json::to_vec(&written).unwrap_or_default()
}

/// Reads texts, `None` when they are damaged or of another version.
pub fn decode(bytes: &[u8]) -> Option<Vec<Source>> {
    let written: Written = serde_json::from_slice(bytes).ok()?;
    if written.version != VERSION || written.checksum != checksum(&written.files) {
        return None;
    }
    let source = |file: WrittenFile| Source { path: file.path, text: file.text };
    Some(written.files.into_iter().map(source).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_damage_is_noticed() {
        let texts = vec![Source { path: "/etc/a.toml".into(), text: "[program.x]\n".into() }];
        let bytes = encode(&texts);
        let back = decode(&bytes).unwrap();
        assert_eq!((&back[0].path, &back[0].text), (&texts[0].path, &texts[0].text));
        let damaged = String::from_utf8(bytes).unwrap().replace("program.x", "program.y");
        assert!(decode(damaged.as_bytes()).is_none());
        assert!(decode(b"{").is_none());
    }
}
