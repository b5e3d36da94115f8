//! Queries, passages and judgements from files, as BEIR and TREC have them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

/// What cannot be read. No text is in a message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// A query or a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// Its identifier.
    pub id: String,
    /// Its text, behind its title and a space if it has one.
    pub text: String,
}

/// A line of queries.jsonl or corpus.jsonl. Other fields are BEIR's own, such as `metadata`.
#[derive(Deserialize)]
struct Line {
    #[serde(alias = "_id")]
    id: Id,
    #[serde(default)]
    title: Option<String>,
    text: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(i64),
}

/// Reads documents from JSON lines with `_id` or `id`, `text`, and optionally `title`.
///
/// # Errors
/// [`Error`] naming file and line.
pub fn documents(path: &Path) -> Result<impl Iterator<Item = Result<Document, Error>> + use<>, Error> {
    let name = path.display().to_string();
    let lines = lines(path)?;
    Ok(lines.filter(|(_, line)| !line.as_ref().is_ok_and(|line| line.trim().is_empty())).map(move |(number, line)| {
        let line = line?;
        let bad = |reason: &str| Error(format!("{name}:{number}: {reason}"));
        let Line { id, title, text } = serde_json::from_str(&line).map_err(|error| match error.classify() {
            // The parser's message about a value would print it.
            serde_json::error::Category::Data => {
                bad("expected {\"_id\": …, \"text\": \"…\"}, and no title or a string")
            }
            _ => bad(&format!("not valid JSON at byte {}", error.column())),
        })?;
        let id = match id {
            Id::Text(id) => id,
            Id::Number(id) => id.to_string(),
        };
        let text = match title.as_deref().map(str::trim) {
            None | Some("") => text,
            Some(title) => format!("{title} {text}"),
        };
        Ok(Document { id, text })
    }))
}

type NumberedLine = (usize, Result<String, Error>);

fn lines(path: &Path) -> Result<impl Iterator<Item = NumberedLine> + use<>, Error> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| Error(format!("{name}: cannot be opened: {error}")))?;
    let lines = BufReader::with_capacity(1 << 16, file).lines();
    Ok(lines.enumerate().map(move |(index, line)| {
        (index + 1, line.map_err(|error| Error(format!("{name}:{}: cannot be read: {error}", index + 1))))
    }))
}

/// For each query the judged passages and how relevant they are: from 1 on is relevant.
#[derive(Debug, Default, Clone)]
pub struct Qrels(HashMap<String, HashMap<String, i64>>);

impl Qrels {
    /// Reads judgements: `query-id corpus-id score` with a line of headings, as BEIR has them, or `query 0 document relevance`,
    /// as TREC has them. Columns are parted by tabs or spaces.
    ///
    /// # Errors
    /// [`Error`] naming file and line.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut qrels = Self::default();
        for (number, line) in lines(path)? {
            let line = line?;
            let words: Vec<_> = line.split_whitespace().collect();
            let (query, document, relevance) = match words[..] {
                [] => continue,
                [query, document, relevance] | [query, _, document, relevance] => (query, document, relevance),
                _ => {
                    let message = format!("{}:{number}: expected three or four columns", path.display());
                    return Err(Error(message));
                }
            };
            match relevance.parse() {
                Ok(relevance) => qrels.add(query, document, relevance),
                Err(_) if number == 1 => {}
                Err(_) => return Err(Error(format!("{}:{number}: the last column is no integer", path.display()))),
            }
        }
        if qrels.0.is_empty() {
            return Err(Error(format!("{}: there are no judgements", path.display())));
        }
        Ok(qrels)
    }

    /// Adds a judgement.
    pub fn add(&mut self, query: &str, document: &str, relevance: i64) {
        self.0.entry(query.to_owned()).or_default().insert(document.to_owned(), relevance);
    }

    /// The judgements of a query; `None` for one that was not judged.
    pub fn of(&self, query: &str) -> Option<&HashMap<String, i64>> {
        self.0.get(query)
    }

    /// The judged queries.
    pub fn queries(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> (std::path::PathBuf, impl Drop) {
        struct Remove(std::path::PathBuf);
        impl Drop for Remove {
            fn drop(&mut self) {
                let _ = std::fs::remove_file(&self.0);
            }
        }
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("nvembed-eval-{}-{number}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        (path.clone(), Remove(path))
    }

    #[test]
    fn both_forms_of_judgements_are_read() {
        for content in ["query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n", "q1 0 d1 2\n\nq1 0 d2 0"] {
            let (path, _remove) = file(content);
            let qrels = Qrels::open(&path).unwrap();
            assert_eq!(qrels.of("q1").unwrap()["d1"], 2);
            assert_eq!((qrels.of("q1").unwrap()["d2"], qrels.of("q2").is_none()), (0, true));
        }
        for (content, wanted) in
            [("q1 d1 1\nq1 d2 x\n", ":2: the last column"), ("a b\n", ":1: expected"), ("", "no judgements")]
        {
            let (path, _remove) = file(content);
            assert!(Qrels::open(&path).unwrap_err().to_string().contains(wanted), "{content}");
        }
    }

    #[test]
    fn documents_are_titles_and_texts() {
        let (path, _remove) = file(
            "{\"_id\": \"a\", \"title\": \"T\", \"text\": \"x\", \"metadata\": {}}\n\n{\"id\": 7, \"text\": \"y\"}\n",
        );
        let found = documents(&path).unwrap().map(|document| document.map(|document| (document.id, document.text)));
        let found = found.collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(found, [("a".to_owned(), "T x".to_owned()), ("7".to_owned(), "y".to_owned())]);
        let (path, _remove) = file("{\"_id\": \"a\", \"text\": [\"secret\"]}\n");
        let error = documents(&path).unwrap().next().unwrap().unwrap_err().to_string();
        assert!(error.contains(":1: expected") && !error.contains("secret"), "{error}");
    }
}
