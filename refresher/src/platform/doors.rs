//! The requests that callers may make of the gateway: the doors that are built in.

use std::sync::LazyLock;

use latchkey::dialect::Dialect;
use latchkey::header::HeaderName;
use latchkey::snapshot::Doors;

/// The built-in doors, without the id of their record.
const BUILT_IN: &str = include_str!("doors.toml");

/// Every door.
static DOORS: LazyLock<Doors> = LazyLock::new(|| {
    let mut table: toml::Table = BUILT_IN.parse().expect("doors.toml is TOML");
    table.insert("id".to_owned(), Doors::ID.into());
    table.try_into().expect("doors.toml is doors")
});

/// The requests that callers may make.
pub fn doors() -> &'static Doors {
    &DOORS
}

/// Every door, with these headers in which clients name a session before the built-in ones.
pub fn doors_with(session_headers: &[HeaderName]) -> Doors {
    let mut doors = DOORS.clone();
    let built_in = std::mem::take(&mut doors.session_headers);
    let built_in = built_in
        .into_iter()
        .filter(|name| !session_headers.contains(name));
    doors.session_headers = session_headers.iter().cloned().chain(built_in).collect();
    doors
}

/// Lists the operations of the doors that platforms can answer, for an error: `chat: embed, generate; messages: generate`.
pub(super) fn asked() -> String {
    let mut asked: Vec<(&str, &str)> = doors()
        .doors
        .iter()
        .filter(|door| door.own().is_none() && door.dialect.is_of_platforms())
        .map(|door| (door.dialect.word(), door.operation.as_str()))
        .collect();
    let translated = Dialect::OF_PLATFORMS
        .into_iter()
        .filter(|one| !one.is_of_callers());
    asked.extend(translated.map(|one| (one.word(), "generate")));
    asked.sort_unstable();
    asked.dedup();
    let by_dialect = asked.chunk_by(|one, next| one.0 == next.0);
    let words = by_dialect.map(|asked| {
        let operations: Vec<&str> = asked.iter().map(|(_, operation)| *operation).collect();
        let dialect = asked.first().map_or("", |(dialect, _)| dialect);
        format!("{dialect}: {}", operations.join(", "))
    });
    words.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use latchkey::snapshot::Record;

    use super::*;

    #[test]
    fn the_built_in_doors_are_in_nobodys_way() {
        assert_eq!(doors().problem(), None);
        let record = Record::Doors(doors().clone());
        let line = record.to_line().unwrap();
        assert_eq!(Record::from_line(line.as_bytes()).unwrap(), record);
        assert_eq!(
            asked(),
            "chat: batch_cancel, batch_create, batch_get, batches, complete, container_add, container_content, \
             container_create, container_delete, container_file, container_files, container_get, container_remove, \
             containers, delete, embed, file_content, file_create, file_delete, file_get, files, generate, get, \
             input_items, moderate, store_add, store_batch, store_batch_cancel, store_batch_files, store_batch_get, \
             store_content, store_create, store_delete, store_file, store_file_update, store_files, store_get, \
             store_remove, store_search, store_update, stores, update, upload_cancel, upload_complete, \
             upload_create, upload_part; ernie: generate; gemini: count_tokens, embed, embed_batch, generate, stream; messages: \
             batch_cancel, batch_create, batch_delete, batch_get, batch_results, batches, count_tokens, \
             file_content, file_create, file_delete, file_get, files, generate; responses: cancel, compact, \
             conversation_add, conversation_create, conversation_delete, conversation_get, conversation_item, \
             conversation_items, conversation_remove, conversation_update, count_tokens, delete, generate, get, \
             image, image_edit, image_variation, input_items, search, speech, transcribe, translate"
        );
    }

    #[test]
    fn an_operators_session_headers_count_first() {
        let own =
            ["x-mine", "thread-id"].map(|name| HeaderName::try_from(name.to_owned()).unwrap());
        let names = doors_with(&own).session_headers;
        assert_eq!(names[..2], own);
        assert_eq!(names.len(), doors().session_headers.len() + 1);
    }

    /// A door says all that is written of it: a key that is none would do nothing.
    #[test]
    fn every_key_of_a_door_is_one() {
        let table: toml::Table = BUILT_IN.parse().unwrap();
        let written = table["doors"].as_array().unwrap();
        for (door, written) in doors().doors.iter().zip(written) {
            let meant = toml::Value::try_from(door).unwrap();
            assert_eq!(&meant, written);
        }
    }
}
