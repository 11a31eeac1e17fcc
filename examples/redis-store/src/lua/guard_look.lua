-- Answers the wait, by a look that changes nothing.
return look(guarding) or false
