//! The name of a provider that nvembed knows nothing about.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// The longest name. `ort` copies the name that a plugin gives itself into 127 bytes.
pub(crate) const MAX_NAME: usize = 64;

/// Every name that was ever asked for: names are compared and copied like the known ones, which are constants.
static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
/// The most names that are kept, so that a program that passes on its users' words cannot be made to grow.
const MAX_NAMES: usize = 256;

/// The name of an execution provider that comes as a [plugin](crate::ModelOptions::provider_library) and is not among
/// [`Provider::ALL`](crate::Provider::ALL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PluginName(&'static str);

impl PluginName {
    /// # Errors
    /// [`ErrorKind::Option`] unless it has 1 to 64 letters, digits, `_`, `-` or `.`.
    pub(super) fn new(name: &str) -> Result<Self> {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
            let shown: String = name.chars().take(MAX_NAME).collect();
            let message = format!("`provider` must have 1 to {MAX_NAME} letters, digits, _, - or ., got {shown:?}");
            return Err(Error::new(ErrorKind::Option, message));
        }
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Ok(Self(known));
        }
        if names.len() == MAX_NAMES {
            let message =
                format!("`provider` has had {MAX_NAMES} different unknown names in this process; no other is taken");
            return Err(Error::new(ErrorKind::Option, message));
        }
        let name: &'static str = Box::leak(Box::from(name));
        names.insert(name);
        Ok(Self(name))
    }

    /// The name as it was given.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_kept_once() {
        let [one, other] = [(); 2].map(|()| PluginName::new("Some.Plug-in_1").unwrap());
        assert_eq!(one, other);
        assert!(std::ptr::eq(one.as_str(), other.as_str()));
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        for name in ["", "a b", "a\n", "ä", &"a".repeat(65)] {
            let error = PluginName::new(name).unwrap_err();
            assert!(error.kind() == ErrorKind::Option && error.to_string().contains("1 to 64 letters"), "{error}");
        }
    }
}
