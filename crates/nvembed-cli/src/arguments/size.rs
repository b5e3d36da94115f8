//! Sizes of memory on the command line: bytes, or a number with a unit.

/// Units and their bytes; a number alone is bytes.
const UNITS: [(&str, usize); 5] = [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads "20GiB", "512 MiB" or "1073741824".
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let expected = || format!("expected bytes or a size such as 20GiB or 512MiB, got {text:?}");
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number: usize = text[..digits].parse().map_err(|_| expected())?;
    let unit = text[digits..].trim();
    let (_, bytes) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(expected)?;
    number.checked_mul(*bytes).ok_or_else(|| format!("{text} is more than this machine can count"))
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, bytes) in [("0", 0), ("17", 17), ("17B", 17), ("3KiB", 3072), ("2 gib", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "1.5GiB", "-1", "10GB", "99999999999999999999", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
