"""What does an ordinary user have in place of root's machine?"""
