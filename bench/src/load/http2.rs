//! As much of HTTP/2 (RFC 9113) as one request after the other needs, and of HPACK (RFC 7541) as
//! tells the status: the client's table for headers has size 0, so that no answer depends on an
//! earlier one.

use std::mem;

use crate::{exchange::Exchange, tally::Fault, workload::Method};

/// The largest frame that a server may send us, in bytes: the default.
const LARGEST: usize = 16 << 10;

/// The largest window there is.
const WINDOW: u32 = (1 << 31) - 1;

/// The window that a connection has before we widen it.
const FIRST_WINDOW: u32 = (1 << 16) - 1;

/// After how many bytes the windows are made whole again: far from their end.
const REFILL: u32 = 1 << 28;

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// Flags of frames.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// A connection that carries one stream at a time.
#[derive(Default)]
pub struct Session {
    /// The stream of the last request.
    stream: u32,
    /// The header of the current frame, as far as it came.
    header: [u8; 9],
    header_bytes: usize,
    /// Bytes of the current frame that are to come.
    left: usize,
    /// What came of the current frame, unless it is DATA.
    payload: Vec<u8>,
    /// Bytes of bodies since the connection's window was whole, and since the stream's was.
    received: [u32; 2],
    /// Whether the server takes no more requests.
    closing: bool,
}

impl Session {
    /// What a client sends first.
    pub fn preface() -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut settings = Vec::new();
        for (setting, value) in [(1_u16, 0), (2, 0), (4, WINDOW)] {
            settings.extend(setting.to_be_bytes());
            settings.extend(value.to_be_bytes());
        }
        frame(SETTINGS, 0, 0, &settings, &mut bytes);
        frame(WINDOW_UPDATE, 0, 0, &(WINDOW - FIRST_WINDOW).to_be_bytes(), &mut bytes);
        bytes
    }

    /// Writes a request with this header block.
    pub fn request(&mut self, block: &[u8], output: &mut Vec<u8>) {
        self.stream = if self.stream == 0 { 1 } else { self.stream + 2 };
        self.received[1] = 0;
        frame(HEADERS, END_STREAM | END_HEADERS, self.stream, block, output);
    }

    /// Takes what came, and writes what it calls for. Whether the answer is whole.
    pub fn take(
        &mut self,
        mut bytes: &[u8],
        exchange: &mut Exchange,
        output: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        let mut whole = false;
        while !bytes.is_empty() {
            if self.header_bytes < self.header.len() {
                let piece = bytes.len().min(self.header.len() - self.header_bytes);
                self.header[self.header_bytes..][..piece].copy_from_slice(&bytes[..piece]);
                self.header_bytes += piece;
                bytes = &bytes[piece..];
                if self.header_bytes < self.header.len() {
                    break;
                }
                self.left = self.length();
                if self.left > LARGEST {
                    return Err(Fault::Protocol);
                }
            }
            let piece = bytes.len().min(self.left);
            self.payload(&bytes[..piece], exchange);
            bytes = &bytes[piece..];
            self.left -= piece;
            if self.left == 0 {
                self.header_bytes = 0;
                whole |= self.end_of_frame(exchange, output)?;
            }
        }
        exchange.closes |= self.closing;
        Ok(whole)
    }

    fn length(&self) -> usize {
        let [high, middle, low, ..] = self.header;
        usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
    }

    fn is_current(&self) -> bool {
        let [.., a, b, c, d] = self.header;
        u32::from_be_bytes([a, b, c, d]) == self.stream
    }

    fn payload(&mut self, piece: &[u8], exchange: &mut Exchange) {
        if self.header[3] != DATA {
            self.payload.extend_from_slice(piece);
        } else if self.is_current() {
            exchange.body(piece);
        }
    }

    /// Does what a frame means, now that all of it is there. Whether it ends the answer.
    fn end_of_frame(
        &mut self,
        exchange: &mut Exchange,
        output: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        let (kind, flags, current) = (self.header[3], self.header[4], self.is_current());
        let mut payload = mem::take(&mut self.payload);
        match kind {
            DATA | HEADERS if flags & PADDED != 0 => return Err(Fault::Protocol),
            DATA => self.refill(output),
            HEADERS if flags & END_HEADERS == 0 => return Err(Fault::Protocol),
            // What follows a body are trailers.
            HEADERS if current && exchange.status.is_none() => {
                let skipped = if flags & PRIORITY != 0 { 5 } else { 0 };
                let block = payload.get(skipped..).ok_or(Fault::Protocol)?;
                exchange.status = Some(status(block).ok_or(Fault::Protocol)?);
            }
            RST_STREAM if current => return Err(Fault::Cut),
            SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[], output),
            PING if flags & ACK == 0 => frame(PING, ACK, 0, &payload, output),
            GOAWAY => self.closing = true,
            _ => {}
        }
        payload.clear();
        self.payload = payload;
        Ok(current && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0)
    }

    /// Counts a frame of DATA, and widens the windows again in time, each by no more than it was used:
    /// a server ends a stream whose window becomes too large (RFC 9113, section 6.9.1).
    fn refill(&mut self, output: &mut Vec<u8>) {
        let length = self.length() as u32;
        for (stream, received) in [0, self.stream].into_iter().zip(&mut self.received) {
            *received += length;
            if *received >= REFILL {
                frame(WINDOW_UPDATE, 0, stream, &received.to_be_bytes(), output);
                *received = 0;
            }
        }
    }
}

/// The header block of a request.
pub fn header_block(
    method: Method,
    scheme: &str,
    authority: &str,
    path: &str,
    headers: &[(String, String)],
) -> Vec<u8> {
    let mut block = Vec::new();
    // Indices of names in the static table (RFC 7541, appendix A).
    for (index, value) in [(2, method.as_str()), (6, scheme), (4, path), (1, authority)] {
        block.push(index);
        string(value, &mut block);
    }
    for (name, value) in headers {
        block.push(0);
        string(&name.to_ascii_lowercase(), &mut block);
        string(value, &mut block);
    }
    block
}

/// Writes a string literal without Huffman coding (RFC 7541, section 5.2).
fn string(text: &str, block: &mut Vec<u8>) {
    let mut length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128) as u8 | 128);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend_from_slice(text.as_bytes());
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], output: &mut Vec<u8>) {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    output.extend(length);
    output.extend([kind, flags]);
    output.extend(stream.to_be_bytes());
    output.extend(payload);
}

/// The status, which is the first field of an answer's header block.
fn status(block: &[u8]) -> Option<u16> {
    match block {
        // A table of size 0 is confirmed (section 6.3).
        [0x20, rest @ ..] => status(rest),
        [index @ 0x88..=0x8e, ..] => {
            [200, 204, 206, 304, 400, 404, 500].get(usize::from(index - 0x88)).copied()
        }
        [0x08 | 0x18 | 0x48, 3, digits @ ..] => {
            std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok()
        }
        [0x08 | 0x18 | 0x48, length @ 0x82..=0x83, coded @ ..] => {
            huffman(coded.get(..usize::from(length - 0x80))?)
        }
        _ => None,
    }
}

/// Three digits in Huffman coding (RFC 7541, appendix B): 0 to 2 are that number in 5 bits, 3 to 9
/// are 25 to 31 in 6.
fn huffman(coded: &[u8]) -> Option<u16> {
    let mut bits = coded.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    bits <<= 32 - 8 * coded.len();
    let mut status = 0;
    for _ in 0..3 {
        let (digit, length) = match bits >> 27 {
            digit @ 0..=2 => (digit, 5),
            _ => ((bits >> 26).checked_sub(22).filter(|digit| (3..=9).contains(digit))?, 6),
        };
        status = status * 10 + digit as u16;
        bits <<= length;
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::{DATA, REFILL, Session, WINDOW_UPDATE, frame, status};

    #[test]
    fn a_stream_gets_back_only_what_it_used_of_its_window() {
        let frames_to_refill = REFILL >> 14;
        let (mut session, mut output) = (Session::default(), Vec::new());
        session.header = [0, 1 << 6, 0, DATA, 0, 0, 0, 0, 1];
        session.request(&[], &mut output);
        output.clear();
        (1..frames_to_refill).for_each(|_| session.refill(&mut output));
        assert!(output.is_empty());
        session.request(&[], &mut output);
        output.clear();
        session.refill(&mut output);
        let mut of_the_connection = Vec::new();
        frame(WINDOW_UPDATE, 0, 0, &REFILL.to_be_bytes(), &mut of_the_connection);
        assert_eq!(output, of_the_connection);
    }

    #[test]
    fn a_status_is_read_however_it_is_written() {
        for (block, expected) in [
            (&[0x88][..], Some(200)),
            (&[0x20, 0x8d], Some(404)),
            (&[0x48, 3, b'4', b'2', b'9'], Some(429)),
            (&[0x48, 0x83, 0x68, 0x4f, 0xff], Some(429)),
            // As in RFC 7541, appendix C.6.
            (&[0x48, 0x82, 0x64, 0x02], Some(302)),
            (&[0x48, 0x83, 0x64, 0x0e, 0xff], Some(307)),
            (&[0x82], None),
            (&[], None),
        ] {
            assert_eq!(status(block), expected, "{block:x?}");
        }
    }
}
