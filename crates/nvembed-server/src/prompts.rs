//! From what a request says about its texts to the instruction of each.

use nvembed::Prompt;

use crate::fields::Fields;
use crate::options::ServerOptions;
use crate::problem::Problem;

/// What a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InputType {
    /// A question, or anything else that searches.
    Query,
    /// A document, which has no instruction.
    Passage,
    /// A text of a task that the operator named.
    Named(String),
}

impl InputType {
    /// The input type with that name, in the words of NIM, Cohere, Voyage and Jina. `None` for a name that means nothing
    /// anywhere; whether a named task exists is the server's business.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "query" | "search_query" | "retrieval.query" => Self::Query,
            "passage" | "document" | "search_document" | "retrieval.passage" => Self::Passage,
            "classification" | "clustering" => Self::Named(name.to_owned()),
            _ => return None,
        })
    }
}

impl std::str::FromStr for InputType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::of(name).ok_or_else(|| format!("expected query or passage, got {name:?}"))
    }
}

/// One value for all texts, or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OneOrEach {
    One(String),
    Each(Vec<String>),
}

/// All that a request can say about what its texts are.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) instruction: Option<OneOrEach>,
    pub(crate) task: Option<OneOrEach>,
    pub(crate) prompt_name: Option<String>,
    pub(crate) input_type: Option<String>,
    /// From the end of the model's name, `-query` or `-passage`. It beats `input_type`, since it is there for clients that
    /// cannot set that, or set it wrongly.
    pub(crate) suffix: Option<InputType>,
}

/// The prompts of a request.
#[derive(Debug)]
pub(crate) struct Prompts {
    pub(crate) prompts: Vec<Prompt<'static>>,
    /// Whether nothing said what the texts are.
    pub(crate) unsaid: bool,
    /// Texts that seem to begin with an instruction that a client wrote into them.
    pub(crate) with_instruction_inside: usize,
}

impl Said {
    /// What the fields say, by the names that all routes have. `prompt_name` is not one of Cohere's.
    ///
    /// # Errors
    /// When a field has another type.
    pub(crate) fn read(fields: &mut Fields) -> Result<Self, Problem> {
        Ok(Self {
            instruction: fields.one_or_each("instruction")?,
            task: fields.one_or_each("task")?,
            input_type: fields.string("input_type")?,
            ..Self::default()
        })
    }

    /// The prompt of each text.
    ///
    /// # Errors
    /// When two fields disagree, a name is unknown, or a list has another length than the texts.
    pub(crate) fn prompts(self, texts: Vec<String>, options: &ServerOptions) -> Result<Prompts, Problem> {
        let count = texts.len();
        let Said { instruction, task, prompt_name, input_type, suffix } = self;
        let mut all: Vec<(&'static str, OneOrEach)> = Vec::new();
        if let Some(value) = instruction {
            all.push(("instruction", value));
        }
        if let Some(value) = task {
            all.push(("task", of_tasks(value, options)?));
        }
        if let Some(name) = prompt_name {
            all.push(("prompt_name", OneOrEach::One(of_name("prompt_name", &name, options)?)));
        }
        let kind = match (suffix, input_type) {
            (Some(kind), _) => Some(("model", of_kind("model", &kind, options)?)),
            (None, Some(name)) => Some(("input_type", of_name("input_type", &name, options)?)),
            (None, None) => None,
        };
        for (field, value) in &all {
            if let OneOrEach::Each(list) = value
                && list.len() != count
            {
                let found = list.len();
                return Err(Problem::invalid(field, format!("`{field}` has {found} entries for {count} texts")));
            }
        }
        let unsaid = all.is_empty() && kind.is_none();
        let mut with_instruction_inside = 0;
        if unsaid && options.require_input_type {
            return Err(Problem::invalid(
                "input_type",
                "this server requires `input_type`: \"query\" or \"passage\" (or `instruction` or `task`)",
            ));
        }
        let default = match &options.default_input_type {
            Some(kind) if unsaid => of_kind("input_type", kind, options)?,
            _ => String::new(),
        };
        let mut prompts = Vec::with_capacity(count);
        for (index, text) in texts.into_iter().enumerate() {
            let at = |value: &OneOrEach| match value {
                OneOrEach::One(value) => value.clone(),
                OneOrEach::Each(list) => list.get(index).cloned().unwrap_or_default(),
            };
            let mut chosen: Option<(&str, String)> = None;
            for (field, value) in &all {
                let value = at(value);
                match &chosen {
                    Some((first, before)) if *before != value => return Err(disagree(first, field, index)),
                    Some(_) => {}
                    None => chosen = Some((field, value)),
                }
            }
            let instruction = match (chosen, &kind) {
                // A sentence says more than "query"; but a passage has none.
                (Some((first, value)), Some((field, kind))) => {
                    if kind.is_empty() != value.is_empty() {
                        return Err(disagree(first, field, index));
                    }
                    value
                }
                (Some((_, value)), None) => value,
                (None, Some((_, kind))) => kind.clone(),
                (None, None) => default.clone(),
            };
            match split(&text) {
                Some((inside, rest)) if options.instructions_in_text && instruction.is_empty() => {
                    prompts.push(Prompt::with_instruction(inside, rest));
                }
                found => {
                    with_instruction_inside += usize::from(found.is_some());
                    prompts.push(Prompt::with_instruction(instruction, text));
                }
            }
        }
        Ok(Prompts { prompts, unsaid, with_instruction_inside })
    }
}

fn disagree(first: &str, second: &'static str, index: usize) -> Problem {
    let message = format!("`{first}` and `{second}` say different things about text {index}; send one of them");
    Problem::invalid(second, message)
}

/// Sentences as instructions; Jina's names of tasks are names here too.
fn of_tasks(tasks: OneOrEach, options: &ServerOptions) -> Result<OneOrEach, Problem> {
    let one = |task: String| match InputType::of(&task) {
        Some(kind) => of_kind("task", &kind, options),
        None => Ok(Prompt::instruction_for(&task)),
    };
    Ok(match tasks {
        OneOrEach::One(task) => OneOrEach::One(one(task)?),
        OneOrEach::Each(tasks) => OneOrEach::Each(tasks.into_iter().map(one).collect::<Result<_, _>>()?),
    })
}

fn of_name(field: &'static str, name: &str, options: &ServerOptions) -> Result<String, Problem> {
    let kind = InputType::of(name).unwrap_or_else(|| InputType::Named(name.to_owned()));
    of_kind(field, &kind, options)
}

fn of_kind(field: &'static str, kind: &InputType, options: &ServerOptions) -> Result<String, Problem> {
    match kind {
        InputType::Query => Ok(Prompt::instruction_for(&options.query_task)),
        InputType::Passage => Ok(String::new()),
        InputType::Named(name) => match options.tasks.iter().find(|(known, _)| known == name) {
            Some((_, task)) => Ok(Prompt::instruction_for(task)),
            None => {
                let known = options.tasks.iter().map(|(name, _)| format!(", {name}")).collect::<String>();
                let hint = match name.as_str() {
                    "classification" | "clustering" => {
                        "; the model has no task of that name: describe yours in one sentence in `task`"
                    }
                    _ => "",
                };
                Err(Problem::invalid(field, format!("`{field}` must be one of query, passage{known}{hint}")))
            }
        },
    }
}

/// An instruction in the model's template at the start of a text, and the rest. Some clients join the two with a space more
/// than the template has, which is dropped.
fn split(text: &str) -> Option<(String, String)> {
    const END: &str = "\nQuery: ";
    let end = text.strip_prefix("Instruct: ").and_then(|_| text.find(END))? + END.len();
    let (instruction, rest) = text.split_at(end);
    Some((instruction.to_owned(), rest.strip_prefix(' ').unwrap_or(rest).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ServerOptions {
        let mut options = ServerOptions { query_task: "Find it".to_owned(), ..ServerOptions::default() };
        options.tasks.push(("clustering".to_owned(), "Group them".to_owned()));
        options
    }

    fn one(text: &str) -> Option<OneOrEach> {
        Some(OneOrEach::One(text.to_owned()))
    }

    fn instruction(said: Said) -> Result<String, String> {
        let prompts = said.prompts(vec!["text".to_owned()], &options()).map_err(|problem| problem.message)?;
        Ok(prompts.prompts[0].instruction().to_owned())
    }

    #[test]
    fn each_way_of_saying_it_gives_its_instruction() {
        let query = "Instruct: Find it\nQuery: ";
        let input_type = |name: &str| Said { input_type: Some(name.to_owned()), ..Said::default() };
        for name in ["query", "search_query", "retrieval.query"] {
            assert_eq!(instruction(input_type(name)).unwrap(), query);
        }
        for name in ["passage", "document", "search_document", "retrieval.passage"] {
            assert_eq!(instruction(input_type(name)).unwrap(), "");
        }
        assert_eq!(instruction(input_type("clustering")).unwrap(), "Instruct: Group them\nQuery: ");
        let unknown = instruction(input_type("classification")).unwrap_err();
        assert!(unknown.contains("query, passage, clustering") && unknown.contains("`task`"), "{unknown}");
        assert_eq!(
            instruction(Said { task: one("Do that"), ..Said::default() }).unwrap(),
            "Instruct: Do that\nQuery: "
        );
        assert_eq!(instruction(Said { task: one("retrieval.query"), ..Said::default() }).unwrap(), query);
        assert_eq!(instruction(Said { instruction: one("as it is: "), ..Said::default() }).unwrap(), "as it is: ");
        let name = Said { prompt_name: Some("query".to_owned()), ..Said::default() };
        assert_eq!(instruction(name).unwrap(), query);
        assert_eq!(instruction(Said::default()).unwrap(), "");
    }

    #[test]
    fn two_fields_that_disagree_are_refused_and_the_suffix_of_the_model_wins() {
        let passage = || Some("passage".to_owned());
        let refused = Said { instruction: one("Find: "), input_type: passage(), ..Said::default() };
        assert!(instruction(refused).unwrap_err().contains("`instruction` and `input_type`"));
        let refused = Said { instruction: one("Find: "), task: one("Find"), ..Said::default() };
        assert!(instruction(refused).unwrap_err().contains("`instruction` and `task`"));
        let more = Said { task: one("Do that"), input_type: Some("query".to_owned()), ..Said::default() };
        assert_eq!(instruction(more).unwrap(), "Instruct: Do that\nQuery: ");
        let suffix = Said { suffix: Some(InputType::Query), input_type: passage(), ..Said::default() };
        assert_eq!(instruction(suffix).unwrap(), "Instruct: Find it\nQuery: ");
    }

    #[test]
    fn a_list_has_an_entry_for_each_text() {
        let each = |list: &[&str]| Some(OneOrEach::Each(list.iter().map(ToString::to_string).collect()));
        let texts = || vec!["a".to_owned(), "b".to_owned()];
        let said = Said { instruction: each(&["one: ", ""]), ..Said::default() };
        let prompts = said.prompts(texts(), &options()).unwrap().prompts;
        assert_eq!((prompts[0].instruction(), prompts[1].instruction()), ("one: ", ""));
        let said = Said { task: each(&["one"]), ..Said::default() };
        let message = said.prompts(texts(), &options()).unwrap_err().message;
        assert_eq!(message, "`task` has 1 entries for 2 texts");
    }

    #[test]
    fn an_instruction_inside_a_text_is_counted_and_split_off_only_on_demand() {
        let text = || vec!["Instruct: Find it\nQuery:  hello".to_owned()];
        let mut options = options();
        let prompts = Said::default().prompts(text(), &options).unwrap();
        assert_eq!((prompts.with_instruction_inside, prompts.prompts[0].instruction()), (1, ""));
        options.instructions_in_text = true;
        let prompts = Said::default().prompts(text(), &options).unwrap();
        let prompt = &prompts.prompts[0];
        assert_eq!((prompt.instruction(), prompt.text()), ("Instruct: Find it\nQuery: ", "hello"));
        assert_eq!(prompts.with_instruction_inside, 0);
    }

    #[test]
    fn an_input_type_can_be_required_or_given_a_default() {
        let mut options = options();
        let text = || vec!["hello".to_owned()];
        assert!(Said::default().prompts(text(), &options).unwrap().unsaid);
        options.default_input_type = Some(InputType::Query);
        let prompts = Said::default().prompts(text(), &options).unwrap();
        assert_eq!(prompts.prompts[0].instruction(), "Instruct: Find it\nQuery: ");
        options.require_input_type = true;
        assert!(Said::default().prompts(text(), &options).unwrap_err().message.contains("requires `input_type`"));
    }
}
