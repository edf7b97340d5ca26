"""Watching and steering a run: feed of the acquisition, hub, page, terminal.

Nothing is loaded here: the hub is a small process, and the acquisition needs only the feed.
"""
