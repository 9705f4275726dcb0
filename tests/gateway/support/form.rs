//! Form data, as uploads come in.

/// The boundary of every form here.
pub const BOUNDARY: &str = "b0undary";

/// A form with sound and some texts.
pub fn form(file: &[u8], texts: &[(&str, &str)]) -> Vec<u8> {
    let head = "name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg";
    form_with(head, file, texts)
}

/// A form with a file, of which this is the head, and some texts.
pub fn form_with(head: &str, file: &[u8], texts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut part = |head: &str, content: &[u8]| {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    };
    part(head, file);
    for (name, text) in texts {
        part(&format!("name=\"{name}\""), text.as_bytes());
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

pub fn type_of_form() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

/// The type of a body that is a form where it does not begin with a brace.
pub fn type_of(body: &[u8]) -> String {
    match body.first() {
        Some(b'{') => "application/json".to_owned(),
        _ => type_of_form(),
    }
}
