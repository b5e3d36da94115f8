//! Keys that clients must show, from a file.

use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// The keys of a file. Only their hashes are kept.
#[derive(Clone)]
pub(crate) struct Keys {
    entries: Vec<(String, [u8; 32])>,
}

impl Keys {
    /// Reads a file of keys, one per line, `key` or `name:key`. Empty lines and those that begin with # are skipped.
    ///
    /// # Errors
    /// When the file cannot be read or has no key: a server that was given an empty file must not be open to everybody.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entry = |(index, line): (usize, &str)| {
            let (name, key) = line.split_once(':').map_or_else(
                || (format!("key {}", index + 1), line),
                |(name, key)| (name.trim().to_owned(), key.trim()),
            );
            if key.is_empty() {
                Err(format!("{}: {name} has an empty key", path.display()))
            } else {
                Ok((name, hash(key)))
            }
        };
        let entries = lines.enumerate().map(entry).collect::<Result<Vec<_>, _>>()?;
        if entries.is_empty() {
            return Err(format!("{} has no key; write one per line, `key` or `name:key`", path.display()));
        }
        Ok(Self { entries })
    }

    /// The name of a key, if it is one of ours. Takes the same time for all keys, so that it tells nothing about ours.
    pub(crate) fn name_of(&self, key: &str) -> Option<&str> {
        let wanted = hash(key);
        let (mut found, mut place) = (Choice::from(0), 0_u64);
        for (index, (_, hash)) in self.entries.iter().enumerate() {
            let same = hash[..].ct_eq(&wanted[..]);
            place.conditional_assign(&(index as u64), same);
            found |= same;
        }
        if bool::from(found) { self.entries.get(place as usize).map(|(name, _)| name.as_str()) } else { None }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_name_and_a_file_without_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "# ours\nsearch: abc \n\nplain\n").unwrap();
        let keys = Keys::read(&path).unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!((keys.name_of("abc"), keys.name_of("plain")), (Some("search"), Some("key 2")));
        for wrong in ["", "ab", "abcd", "search", "search:abc"] {
            assert_eq!(keys.name_of(wrong), None, "{wrong}");
        }
        for text in ["", "# nothing\n", "name:\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(Keys::read(&path).is_err(), "{text:?}");
        }
        assert!(Keys::read(&folder.path().join("none")).is_err());
    }
}
