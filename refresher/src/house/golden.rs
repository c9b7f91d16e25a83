//! The sentences of errors and of operations, as the source has them: a change of words is a change of
//! `cli/snapshots/sentences.snap`. Few of them stand in the transcripts beside it.

use super::files;

/// The beginning of an error's sentence.
const OF_ERROR: &str = "#[error(";

#[test]
fn sentences() {
    let mut all = String::new();
    for (path, text) in files() {
        let is_of_app = path.starts_with("/app/");
        let literals = literals(&text).into_iter();
        let sentences: Vec<String> = literals
            .filter(|(at, literal)| {
                text[..*at].trim_end().ends_with(OF_ERROR) || is_of_app && literal.contains(' ')
            })
            .map(|(_, literal)| format!("  {literal}\n"))
            .collect();
        if !sentences.is_empty() {
            all += &format!("{path}\n{}\n", sentences.concat());
        }
    }
    assert!(all.lines().count() > 250, "they are found");
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path("../cli/snapshots");
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("sentences", all));
}

/// The strings of a source, and where each begins. One that goes on in the next line is joined.
fn literals(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(step) = text[at..].find(['"', '\'']) {
        let start = at + step;
        let inside = &text[start + 1..];
        if text[start..].starts_with('\'') {
            let mut chars = inside.chars();
            // A character, or the name of a lifetime.
            let length = match chars.next() {
                Some('\\') => inside[2..].find('\'').map(|end| end + 3),
                Some(char) if chars.next() == Some('\'') => Some(char.len_utf8() + 1),
                _ => None,
            };
            at = start + 1 + length.unwrap_or(0);
            continue;
        }
        let before = text[..start].trim_end_matches('#');
        let hashes = &text[before.len()..start];
        let letter = before.strip_suffix('r');
        let is_raw =
            letter.is_some_and(|rest| !rest.ends_with(|char: char| char.is_alphanumeric()));
        let end = if is_raw {
            inside.find(&format!("\"{hashes}"))
        } else {
            let mut escaped = false;
            inside.find(|char: char| {
                let ends = char == '"' && !escaped;
                escaped = char == '\\' && !escaped;
                ends
            })
        };
        let end = end.unwrap();
        let mut lines = inside[..end].split("\\\n");
        let first = lines.next().unwrap().to_owned();
        found.push((
            start,
            lines.fold(first, |all, line| all + line.trim_start()),
        ));
        at = start + 1 + end + 1;
    }
    found
}
