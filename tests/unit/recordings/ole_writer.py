"""Writes OLE2 compound files (version 3), after [MS-CFB]: header, FAT, mini FAT, and a directory with a tree per storage."""

import struct

SECTOR, MINI, CUTOFF = 512, 64, 4096
FREE, END, FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


def write_ole(path, streams):
    """Write `streams`, bytes by "storage/name", into a new file."""
    entries = [["Root Entry", 5, [], b""]]
    index = {"": 0}
    for name in sorted(streams):
        parent = ""
        for part in name.split("/")[:-1]:
            full = f"{parent}/{part}".strip("/")
            if full not in index:
                index[full] = len(entries)
                entries[index[parent]][2].append(len(entries))
                entries.append([part, 1, [], b""])
            parent = full
        entries[index[parent]][2].append(len(entries))
        entries.append([name.split("/")[-1], 2, [], streams[name]])
    sectors, starts, mini, mini_fat = [], [END] * len(entries), b"", []
    for i, (_, kind, _, content) in enumerate(entries):
        if kind != 2 or not content:
            continue
        if len(content) < CUTOFF:
            n = -(-len(content) // MINI)
            starts[i] = len(mini_fat)
            mini_fat += [len(mini_fat) + k + 1 for k in range(n - 1)] + [END]
            mini += content.ljust(n * MINI, b"\0")
        else:
            starts[i] = _append(sectors, content)
    entries[0][3], starts[0] = mini, _append(sectors, mini)
    mini_at = _append(sectors, struct.pack(f"<{len(mini_fat)}I", *mini_fat), fill=b"\xff")
    n_mini = -(-len(mini_fat) * 4 // SECTOR)
    directory_start = _append(sectors, _directory(entries, starts))
    n_fat = 1
    while n_fat * SECTOR // 4 < len(sectors) + n_fat:
        n_fat += 1
    assert n_fat <= 109, "no DIFAT here: keep test files below 7 MB"
    table = [i + 1 if goes_on else END for i, (_, goes_on) in enumerate(sectors)] + [FAT] * n_fat
    table += [FREE] * (n_fat * SECTOR // 4 - len(table))
    fat_at = [len(sectors) + i for i in range(n_fat)]
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header += struct.pack("<HHHHH6xII", 0x3E, 3, 0xFFFE, 9, 6, 0, n_fat)
    header += struct.pack("<IIIIIII", directory_start, 0, CUTOFF, mini_at, n_mini, END, 0)
    header += struct.pack("<109I", *fat_at, *([FREE] * (109 - n_fat)))
    body = b"".join(part for part, _ in sectors) + struct.pack(f"<{len(table)}I", *table)
    path.write_bytes(header + body)


def _append(sectors, content, fill=b"\0"):
    """Append `content` as a chain of sectors and return where it begins."""
    if not content:
        return END
    start = len(sectors)
    parts = [content[i : i + SECTOR].ljust(SECTOR, fill) for i in range(0, len(content), SECTOR)]
    sectors += [(part, n + 1 < len(parts)) for n, part in enumerate(parts)]
    return start


def _directory(entries, starts):
    links = {i: [FREE, FREE, FREE] for i in range(len(entries))}
    for i, (_, _, children, _) in enumerate(entries):
        order = sorted(children, key=lambda c: (len(entries[c][0]), entries[c][0].upper()))
        links[i][2] = _tree(order, links)
    packed = b""
    for i, (name, kind, _, content) in enumerate(entries):
        text = name.encode("utf-16-le") + b"\0\0"
        packed += text.ljust(64, b"\0") + struct.pack("<HBB", len(text), kind, 1) + struct.pack("<III", *links[i])
        packed += bytes(36) + struct.pack("<IQ", 0 if kind == 1 else starts[i], len(content))
    empty = bytes(68) + struct.pack("<III", FREE, FREE, FREE) + bytes(48)
    return packed + empty * (-len(entries) % 4)


def _tree(order, links):
    if not order:
        return FREE
    middle = len(order) // 2
    links[order[middle]][0] = _tree(order[:middle], links)
    links[order[middle]][1] = _tree(order[middle + 1 :], links)
    return order[middle]
