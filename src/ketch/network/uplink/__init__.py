"""How does a user's network reach the machine's, and how is it reached?

By one process a state directory (``service``), which is in the machine's network itself: it keeps
the way out, a program of the distribution's that reads packets from a tap in the user's network and
speaks for them by sockets of the machine's (``programs``, ``uplink``), and the way in, sockets of
the machine's for published ports. Who asks it for either is in ``outside``.
"""
