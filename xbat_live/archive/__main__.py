"""Process of the archive's Tiled server, started by `xbat_live.archive.server.TiledServer`."""

import sys

from xbat_live.archive.serving import child_main

if __name__ == "__main__":
    child_main(sys.argv[1:])
