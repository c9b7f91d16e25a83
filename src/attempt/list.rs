//! A header that is a list (RFC 9110 §5.6.1), to which a platform's profile adds an item, or of which it keeps one here.

use std::borrow::Cow;

use super::Headers;

/// Puts `item` behind what the list `name` has, unless it has it.
pub(super) fn add<'a>(headers: &mut Headers<'a>, name: &'a str, item: &'a str) {
    let mut sent = headers.iter().filter(|(sent, _)| *sent == name);
    if sent.any(|(_, value)| is_in(value, item)) {
        return;
    }
    match headers.iter_mut().rfind(|(sent, _)| *sent == name) {
        Some((_, value)) if !value.trim_ascii().is_empty() => {
            let value = value.to_mut();
            value.push(b',');
            value.extend_from_slice(item.as_bytes());
        }
        Some((_, value)) => *value = item.as_bytes().into(),
        None => headers.push((name, item.as_bytes().into())),
    }
}

fn is_in(list: &[u8], item: &str) -> bool {
    let mut items = list.split(|byte| *byte == b',');
    items.any(|one| one.trim_ascii() == item.as_bytes())
}

/// The list without `item`, wherever that is; `None` where nothing else was there.
pub(super) fn rest<'a>(list: &'a [u8], item: &str) -> Option<Cow<'a, [u8]>> {
    if !is_in(list, item) {
        return Some(list.into());
    }
    let items = list.split(|byte| *byte == b',');
    let others = items.filter(|one| one.trim_ascii() != item.as_bytes());
    let rest = others.collect::<Vec<_>>().join(&b',');
    let rest = rest.trim_ascii();
    (!rest.is_empty()).then(|| rest.to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "x-list";
    const ITEM: &str = "new-1";

    fn added(values: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut headers: Headers<'_> = vec![("x-other", b"a".into())];
        headers.extend(values.iter().map(|value| (NAME, (*value).into())));
        add(&mut headers, NAME, ITEM);
        assert_eq!(headers[0], ("x-other", b"a".as_slice().into()));
        let values = headers.drain(1..).map(|(name, value)| {
            assert_eq!(name, NAME);
            value.into_owned()
        });
        values.collect()
    }

    #[test]
    fn an_item_is_put_behind_what_the_caller_sent_and_not_twice() {
        for (sent, goes_out) in [
            (&[][..], &["new-1"][..]),
            (&["a,b"], &["a,b,new-1"]),
            (&["a, new-1 ,b"], &["a, new-1 ,b"]),
            (&["new-1"], &["new-1"]),
            (&["new-10,old-new-1"], &["new-10,old-new-1,new-1"]),
            (&[""], &["new-1"]),
            (&[" "], &["new-1"]),
            (&["a", "b"], &["a", "b,new-1"]),
            (&["new-1", "b"], &["new-1", "b"]),
        ] {
            let values: Vec<&[u8]> = sent.iter().map(|value| value.as_bytes()).collect();
            let expected: Vec<&[u8]> = goes_out.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(added(&values), expected, "{sent:?}");
        }
        assert_eq!(added(&[b"\xff"]), [b"\xff,new-1"]);
    }

    #[test]
    fn an_item_stays_here_and_the_rest_of_the_list_goes_out() {
        for (sent, goes_out) in [
            ("a,b", Some("a,b")),
            (" a , b ", Some(" a , b ")),
            ("", Some("")),
            ("new-1", None),
            (" new-1 ,new-1", None),
            ("new-1,a, b", Some("a, b")),
            ("a, new-1 ,b", Some("a,b")),
            ("a, b,new-1", Some("a, b")),
            ("new-10,old-new-1,New-1", Some("new-10,old-new-1,New-1")),
        ] {
            let rest = rest(sent.as_bytes(), ITEM);
            let expected = goes_out.map(str::as_bytes);
            assert_eq!(rest.as_deref(), expected, "{sent:?}");
        }
        assert_eq!(rest(b"\xff,new-1", ITEM).as_deref(), Some(&b"\xff"[..]));
    }
}
