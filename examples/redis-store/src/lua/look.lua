-- KEYS: the rules. Answers the longest wait.
return look(rules(1, #KEYS)) or false
