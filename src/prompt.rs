//! A prompt: one text to embed, and the instruction in front of it.

use std::borrow::Cow;

/// What precedes and follows the task in the instruction of a query, as NV-Embed was trained.
const QUERY_TEMPLATE: (&str, &str) = ("Instruct: ", "\nQuery: ");

/// One text to embed, with the instruction that precedes it.
///
/// The model reads the instruction but does not pool it. Queries have one; passages have none. Each prompt has its own, so
/// queries and passages, and different tasks, can be mixed in one call.
///
/// ```
/// use nvembed::Prompt;
/// let query = Prompt::query("Given a question, retrieve passages that answer the question", "who wrote the odyssey?");
/// assert!(query.instruction().ends_with("\nQuery: "));
/// assert_eq!(Prompt::passage("Homer.").instruction(), "");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt<'a> {
    instruction: Cow<'a, str>,
    text: Cow<'a, str>,
}

impl<'a> Prompt<'a> {
    /// The task of the model card's example, for queries whose task nobody named.
    pub const DEFAULT_TASK: &'static str = "Given a question, retrieve passages that answer the question";

    /// A text without an instruction: a document, or any text of a symmetric task.
    pub fn passage(text: impl Into<Cow<'a, str>>) -> Self {
        Self::with_instruction("", text)
    }

    /// A query of the task described in one English sentence: its instruction is `"Instruct: {task}\nQuery: "`.
    pub fn query(task: &str, text: impl Into<Cow<'a, str>>) -> Self {
        Self::with_instruction(Self::instruction_for(task), text)
    }

    /// A text with a literal instruction in front, which is used as it is. An empty instruction means none.
    pub fn with_instruction(instruction: impl Into<Cow<'a, str>>, text: impl Into<Cow<'a, str>>) -> Self {
        Self { instruction: instruction.into(), text: text.into() }
    }

    /// The instruction that [`Prompt::query`] makes from a task.
    pub fn instruction_for(task: &str) -> String {
        let (before, after) = QUERY_TEMPLATE;
        format!("{before}{task}{after}")
    }

    /// The template, as the manifest has it.
    pub(crate) fn query_template() -> String {
        Self::instruction_for("{task}")
    }

    /// The instruction; `""` when there is none.
    pub fn instruction(&self) -> &str {
        &self.instruction
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }
}
