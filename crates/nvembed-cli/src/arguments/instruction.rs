//! Instructions that are almost surely a mistake. They are embedded as they are given, with a warning.

use nvembed::Prompt;

/// The instruction of `--task` or `--instruction`, empty for neither.
pub(crate) fn resolve(task: Option<&str>, instruction: Option<String>) -> String {
    if let Some(task) = task {
        warn(doubt_of_task(task), "--task");
        return Prompt::instruction_for(task);
    }
    let instruction = instruction.unwrap_or_default();
    warn(doubt_of_instruction(&instruction), "--instruction");
    instruction
}

fn warn(doubt: Option<&str>, option: &str) {
    if let Some(doubt) = doubt {
        tracing::warn!("{option} {doubt}");
    }
}

const BACKSLASH_N: &str =
    "has a backslash and the letter n where a line break was probably meant: in a shell, write $'...\\n...'";

fn doubt_of_task(task: &str) -> Option<&'static str> {
    let lower = task.trim_start().to_ascii_lowercase();
    if lower.starts_with("instruct:") || lower.contains("\nquery:") || lower.contains("\\nquery:") {
        return Some(
            "is the sentence alone: it is put between \"Instruct: \" and \"\\nQuery: \", which it seems to have already; give \
             a whole instruction by --instruction",
        );
    }
    task.contains("\\n").then_some(BACKSLASH_N)
}

fn doubt_of_instruction(instruction: &str) -> Option<&'static str> {
    if instruction.contains("\\n") && !instruction.contains('\n') {
        return Some(BACKSLASH_N);
    }
    let lower = instruction.to_ascii_lowercase();
    if !lower.starts_with("instruct:") {
        return None;
    }
    if lower.trim_end().ends_with("query:") && !instruction.ends_with(": ") {
        return Some(
            "ends without the space of NV-Embed's form \"Instruct: ...\\nQuery: \", which changes the embeddings",
        );
    }
    if !lower.contains("\nquery:") {
        return Some(
            "begins with \"Instruct:\" but has no line \"Query: \", as NV-Embed's form does; --task makes it from a sentence",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_probably_meant_otherwise_is_doubted_and_the_right_forms_are_not() {
        for task in ["Instruct: X\nQuery: ", "instruct: X", "Find\\nit", "X\\nQuery: "] {
            assert!(doubt_of_task(task).is_some(), "{task:?}");
        }
        for instruction in
            ["Instruct: X\\nQuery: ", "Instruct: X\nQuery:", "Instruct: X", "Instruct: X Query: ", "a\\nb"]
        {
            assert!(doubt_of_instruction(instruction).is_some(), "{instruction:?}");
        }
        for task in ["Given a question, retrieve passages that answer the question", "Query: a thing", ""] {
            assert_eq!(doubt_of_task(task), None, "{task:?}");
        }
        for instruction in ["", "Instruct: X\nQuery: ", "Represent this: ", "query: ", "C:\\new\nfolder "] {
            assert_eq!(doubt_of_instruction(instruction), None, "{instruction:?}");
        }
    }
}
