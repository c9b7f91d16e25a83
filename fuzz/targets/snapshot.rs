//! Laws: a page says what was put in it; a page with one bit flipped is refused; a record that is accepted survives
//! its line.
#![no_main]

use latchkey::snapshot::{
    Record,
    bucket::{Bucket, Head},
    page::{Epoch, Page, PageHeader},
};
use latchkey_fuzz::byte;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Page::parse(data);
    let _ = Bucket::decode(data).map(|bucket| {
        bucket.records().for_each(|line| {
            let _ = Record::from_line(line);
        })
    });
    let _ = Head::decode(data).map(|head| assert_eq!(Head::decode(&head.encode()), Some(head)));

    let mut data = data;
    let flip = u16::from_be_bytes([byte(&mut data), byte(&mut data)]);
    let records: Vec<Record> = data
        .split(|byte| *byte == b'\n')
        .filter_map(|line| Record::from_line(line).ok())
        .collect();
    let lines: Vec<String> = records
        .iter()
        .filter_map(|record| record.to_line().ok())
        .collect();
    for (record, line) in records.iter().zip(&lines) {
        let again = Record::from_line(line.as_bytes());
        assert_eq!(&again.expect("it was a record"), record);
    }
    let lines = lines.iter().map(String::as_str);
    let mut page = PageHeader::encode(Epoch::default(), true, (0, 7), false, lines.clone());
    let parsed = Page::parse(&page).expect("it was just written");
    assert!(parsed.lines().eq(lines.map(str::as_bytes)));

    // The checksum's own hex digits may be written in either case.
    let at = usize::from(flip / 8) % page.len();
    let bit = 1 << (flip % 8);
    if at >= 64 || bit != 0x20 {
        page[at] ^= bit;
        assert!(Page::parse(&page).is_err());
    }
});
